"""A spool: submit requests to it, and wait for their responses."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

from spoold.client import names, response
from spoold.client.address import DEFAULT, connect
from spoold.client.errors import RequestError, TimedOutError
from spoold.client.response import Response
from spoold.client.watch import Pause, Submission, Watch

BOUND = 32  # submissions on their way at once
AHEAD = 4  # `map` holds up to AHEAD * bound submissions, as done ones must wait for those before them
PATIENCE = 2.0  # seconds that one question over ssh may wait for an answer

__all__ = ["Spool", "Submission"]


class Spool:
    """A spool: a directory, ``ssh://[user@]host[:port]/path``, or ``ssh://[user@]host`` for a gateway.

    ``where`` defaults to $SPOOLD_SPOOL, then to /var/spool/spoold. ``ssh`` is the command that reaches a host, with its
    options. It defaults to $SPOOLD_SSH, then to ``ssh``. All calls share one connection. All methods raise
    :class:`SpoolError`, and several threads may call them at once.
    """

    def __init__(self, where: str | os.PathLike[str] | None = None, *, ssh: Iterable[str] | None = None) -> None:
        self.where = os.fspath(where or os.environ.get("SPOOLD_SPOOL") or DEFAULT)
        self.transport = connect(self.where, ssh)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, where there is one. Submissions go on."""
        self.transport.close()

    def submit(self, request: Mapping[str, Any] | bytes, *, id: str | None = None, stem: str = "job") -> Submission:
        """Submit a request, or its JSON, and return at once.

        Without an ``id``, the id is ``stem`` and a part that nobody can guess. The same request with the same id is the
        same submission. So a caller that chooses its ids can submit everything again after a crash, and nothing is run
        twice.
        """
        if id is not None and not names.is_id(id):
            raise RequestError(f"{id!a} cannot be an id: {names.RULE}: for example {names.proper(id)}")
        from spoold.client.request import as_bytes  # noqa: PLC0415 - a caller that only waits makes no request

        dropped = self.transport.drop(id or names.new_id(stem), as_bytes(request))
        return Submission(dropped.id, dropped)

    def wait(
        self,
        submission: Submission | str,
        timeout: float | None = None,
        *,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Response:
        """Return the response of a submission or of an id, once it has come.

        ``meanwhile`` is called from time to time. Raises :class:`TimedOutError` where no response comes within
        ``timeout`` seconds. The submission can then be waited for again.
        """
        one = self._of(submission)
        if not one.done:
            for _ in self._completed([one], None, timeout, meanwhile=meanwhile):
                pass
        return one.result()

    def as_completed(
        self,
        submissions: Iterable[Submission],
        *,
        bound: int | None = None,
        timeout: float | None = None,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Iterator[Submission]:
        """Yield submissions as they are done. ``meanwhile`` is called from time to time.

        With a ``bound``, the next submission is taken from ``submissions`` only while fewer than ``bound`` are on their
        way. So a generator that submits has at most ``bound`` submissions on their way at once. Raises
        :class:`TimedOutError` where ``timeout`` seconds are not enough for all.
        """
        return self._completed(submissions, bound, timeout, meanwhile=meanwhile)

    def map(
        self,
        requests: Iterable[Mapping[str, Any] | bytes],
        *,
        bound: int = BOUND,
        timeout: float | None = None,
        stem: str = "job",
    ) -> Iterator[Response]:
        """Submit requests, ``bound`` at once, and yield their responses in the same order.

        If the caller stops early, the submissions that are on their way go on.
        """
        submitted: deque[Submission] = deque()

        def submitting() -> Iterator[Submission]:
            for request in requests:
                submitted.append(self.submit(request, stem=stem))
                yield submitted[-1]

        for _ in self._completed(submitting(), bound, timeout, lambda: len(submitted) < AHEAD * bound):
            while submitted and submitted[0].done:
                yield submitted.popleft().result()

    def refusal(self, submission: Submission, timeout: float) -> Response | None:
        """Wait until a submission is taken in, and return its response if it was refused.

        None means that it was accepted, or after ``timeout`` seconds that nothing is known yet.
        """
        deadline, pause, watch = time.monotonic() + timeout, Pause(), Watch(self.transport)
        watch.add(submission)
        while self.transport.is_dropped(submission.file) and time.monotonic() < deadline:
            time.sleep(pause.next())
        watch.look()
        return submission.response if submission.response and submission.response.status == response.REJECTED else None

    def status(self, id: str) -> Response | None:
        """Return the response of an id, or the response so far; None where nothing is known of the id (yet)."""
        data, _ = self.transport.look(id)
        return None if data is None else response.read(data)

    def cancel(self, submission: Submission | str) -> None:
        """Ask for a submission of yours to be cancelled. Its response comes as usual."""
        self.transport.cancel(self._of(submission).id)

    def outputs(self, submission: Submission | str, *, case: str | None = None) -> dict[str, bytes]:
        """Return the files that came back from the run or from a ``case``, by name. Waits for the response."""
        from spoold.client import outputs  # noqa: PLC0415 - few callers ask for files

        one = self._of(submission)
        found = self.wait(one)
        return outputs.contents(self.transport, found, one.id, outputs.of_response(found, case))

    def save(
        self,
        submission: Submission | str,
        directory: str | os.PathLike[str],
        *,
        case: str | None = None,
        over: bool = False,
    ) -> list[str]:
        """Write the files that came back into a directory, and return their names.

        The directory is made where it is missing. A file that exists already is an error; with ``over`` it is replaced.
        """
        from spoold.client import outputs  # noqa: PLC0415 - as above

        one = self._of(submission)
        files = outputs.of_response(self.wait(one), case)
        return outputs.save(self.outputs(one, case=case), files, directory, over=over)

    def _of(self, submission: Submission | str) -> Submission:
        if isinstance(submission, Submission):
            return submission
        if not names.is_id(submission):
            raise RequestError(f"{submission!a} cannot be an id: {names.RULE}")
        self.transport.require()  # nobody has dropped anything here yet, and a wait for a wrong spool would not end
        return Submission(submission)

    def _completed(
        self,
        submissions: Iterable[Submission],
        bound: int | None,
        timeout: float | None,
        has_room: Callable[[], bool] = lambda: True,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Iterator[Submission]:
        deadline = None if timeout is None else time.monotonic() + timeout
        source, watch, pause, more = iter(submissions), Watch(self.transport), Pause(), True
        while True:
            while more and (bound is None or len(watch) < bound) and has_room():
                submission = next(source, None)
                if submission is None:
                    more = False
                else:
                    watch.add(submission)
            if not len(watch):
                return
            left = None if deadline is None else deadline - time.monotonic()
            last = left is not None and left <= 0
            finished = watch.look(0.0 if last else PATIENCE if left is None else min(left, PATIENCE), last=last)
            yield from finished
            if finished:
                pause.reset()
            elif last:
                raise TimedOutError(f"{watch}: no response within {timeout:g} s. It is not lost: wait again")
            else:
                meanwhile()
                time.sleep(pause.next() if left is None else pause.next(left))
