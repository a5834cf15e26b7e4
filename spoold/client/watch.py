"""Submissions on their way, and how a client recognizes their answers.

Spec: spool-layout.md, "What a client may rely on". An id may have been used before, for another request. So
``request_sha256`` in an answer tells which request it answers. If that is another request, the answer to ours is a
refusal in a file beside the response, which may appear later.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable

from spoold.client import names, response
from spoold.client.errors import AnswerError, SpoolError, TimedOutError, UnreachableError
from spoold.client.response import Response
from spoold.client.transport import Dropped, Transport

FIRST, GROWTH, LONGEST = 0.01, 1.3, 0.5  # seconds between two looks
LATE = 90.0  # seconds until a new name is seen over NFS at the latest; an NFS client caches absence for 60 seconds
OUTAGE = 120.0  # seconds for which a file server may be away
AWAY = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN, errno.EREMOTEIO}


class Submission:
    """A submission: its ``id``, its ``response`` once that has come, and in ``raw`` the exact bytes of the response."""

    def __init__(self, id_: str, dropped: Dropped | None = None) -> None:
        self.id = id_
        self.dropped = dropped
        self.raw = b""
        self._response: Response | None = None
        self._error: SpoolError | None = None
        self._another = ""  # why the response with our id does not answer our request
        self._since = 0.0

    def __repr__(self) -> str:
        state = self._response.status if self._response else "on its way"
        return f"<Submission {self.id}: {state}>"

    @property
    def file(self) -> str:
        """Return the name of its file in the drop box. The file is there until it is taken in."""
        return self.dropped.file if self.dropped else f"{self.id}.json"

    @property
    def response(self) -> Response | None:
        """Return the response, None until it has come."""
        return self._response

    @property
    def done(self) -> bool:
        """Tell whether there is nothing more to wait for."""
        return self._response is not None or self._error is not None

    def result(self) -> Response:
        """Return the response. Raises :class:`SpoolError` where it has not come, or cannot be used."""
        if self._error:
            raise self._error
        if self._response is None:
            raise TimedOutError(f"{self.id}: there is no response yet: wait for it")
        return self._response

    # -- what a watch asks and tells

    def wanted(self) -> list[str]:
        """Return the names in ``done/`` that its answer may have."""
        wanted = [] if self._another else [names.response_name(self.id)]
        if self.dropped and self.dropped.uid is not None:
            wanted.insert(0, names.refusal_name(self.id, self.dropped.uid, self.dropped.sha256))
        return wanted

    def take(self, name: str, data: bytes, transport: Transport) -> None:
        """Look at an answer that was found under one of the names from ``wanted``."""
        is_response = name == names.response_name(self.id)
        try:
            if not data:
                self._refuse(f"{self.id}: its response belongs to another user", is_response=is_response)
            elif self._is_ours(data, is_response=is_response, transport=transport):
                self.raw, self._response = data, response.read(data)
        except AnswerError as error:
            self._error = AnswerError(f"{self.id}: {error}")

    def _is_ours(self, data: bytes, *, is_response: bool, transport: Transport) -> bool:
        if self.dropped is None:
            return True
        about = response.what_it_answers(data)
        ours = about.request_sha256 in (self.dropped.sha256, None)
        if not is_response:
            return ours and about.uid in (self.dropped.uid, None)
        if not ours:
            self._refuse("the response of this id answers another request, and yours has none", is_response=True)
            return False
        # An answer without a digest is for a request that spoold did not read whole. It is ours if our file has been
        # taken in and there is no refusal of it.
        return about.request_sha256 is not None or not transport.is_dropped(self.dropped.file)

    def _refuse(self, why: str, *, is_response: bool) -> None:
        if not is_response:
            return
        if self.dropped is None:
            self._error = AnswerError(why)
        self._another, self._since = why, time.monotonic()

    def give_up(self, transport: Transport, *, at_once: bool) -> None:
        """Fail with an error where another request has the id, and no refusal of ours came in time."""
        if not self._another or self.done or self.dropped is None:
            return
        no_refusal = at_once or self.dropped.uid is None or time.monotonic() > self._since + LATE
        if no_refusal and not transport.is_dropped(self.dropped.file):
            self._error = AnswerError(f"{self.id}: {self._another}")


class Watch:
    """The submissions that are waited for. A thread may add some while another thread looks."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._pending: dict[Submission, None] = {}
        self._away_since: float | None = None

    def __len__(self) -> int:
        return len(self._pending)

    def __str__(self) -> str:
        """Return the first three ids, and how many more there are."""
        ids = [submission.id for submission in list(self._pending)[:3]]
        return ", ".join([*ids, *([f"and {len(self) - 3} more"] if len(self) > 3 else [])])

    def add(self, submission: Submission) -> None:
        """Wait for one more submission."""
        self._pending[submission] = None

    def drop(self, submission: Submission) -> None:
        """Stop waiting for a submission."""
        self._pending.pop(submission, None)

    def look(self, patience: float = 0.0, *, last: bool = False) -> list[Submission]:
        """Return the submissions that are newly done, in the order in which they were added.

        ``last`` says that nobody will look again. Then a submission whose id belongs to another request fails now.
        """
        pending = list(self._pending)
        wanted: dict[str, list[Submission]] = {}
        for submission in pending:
            for name in submission.wanted():
                wanted.setdefault(name, []).append(submission)
        found = self._answers(wanted, patience)
        for name in sorted(found, key=lambda each: not each.endswith(".refused.json")):
            for submission in wanted[name]:
                if not submission.done:
                    submission.take(name, found[name], self._transport)
        for submission in pending:
            submission.give_up(self._transport, at_once=last)
        finished = [submission for submission in pending if submission.done]
        for submission in finished:
            self.drop(submission)
        return finished

    def _answers(self, wanted: Iterable[str], patience: float) -> dict[str, bytes]:
        try:
            found = self._transport.answers(list(wanted), patience)
        except OSError as error:
            now = time.monotonic()
            self._away_since = now if self._away_since is None else self._away_since
            if error.errno in AWAY and now < self._away_since + OUTAGE:
                return {}
            raise UnreachableError(
                f"the spool cannot be read: {error.strerror}. Nothing is lost: wait again later"
            ) from error
        self._away_since = None
        return found


class Pause:
    """The time to wait until the next look. It grows each time that nothing has come."""

    def __init__(self) -> None:
        self._next = FIRST

    def reset(self) -> None:
        """Begin with short pauses again."""
        self._next = FIRST

    def next(self, most: float = LONGEST) -> float:
        """Return the number of seconds to wait."""
        now, self._next = self._next, min(self._next * GROWTH, LONGEST)
        return max(0.0, min(now, most))
