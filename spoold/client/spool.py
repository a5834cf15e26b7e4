"""A spool: submitting to it, and waiting for what comes of that."""

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
AHEAD = 4  # times as many may be done and wait for their turn, where results come in the order of the requests
PATIENCE = 2.0  # seconds that one question over ssh may wait for an answer

__all__ = ["Spool", "Submission"]


class Spool:
    """A spool that is a directory, or ``ssh://[user@]host[:port]/path``, or behind a gateway ``ssh://[user@]host``.

    Without ``where`` it is $SPOOLD_SPOOL. ``ssh`` is the command that reaches a host, with its options; without it
    $SPOOLD_SSH, or ``ssh``. One connection serves everything. All methods raise :class:`SpoolError`, and may be called
    by several threads at once.
    """

    def __init__(self, where: str | os.PathLike[str] | None = None, *, ssh: Iterable[str] | None = None) -> None:
        self.where = os.fspath(where or os.environ.get("SPOOLD_SPOOL") or DEFAULT)
        self.transport = connect(self.where, ssh)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, where there is one. What was submitted goes on."""
        self.transport.close()

    def submit(self, request: Mapping[str, Any] | bytes, *, id: str | None = None, stem: str = "job") -> Submission:
        """Submit a request, or its JSON, and return at once.

        Without an ``id`` it is ``stem`` and what nobody can guess. The same request with the same id is the same
        submission: so whoever chooses ids may submit all again after a crash, and nothing is run twice.
        """
        if id is not None and not names.is_id(id):
            raise RequestError(f"{id!a} cannot be an id: {names.RULE}: for example {names.proper(id)}")
        from spoold.client.request import as_bytes  # noqa: PLC0415 - whoever waits makes no request

        dropped = self.transport.drop(id or names.new_id(stem), as_bytes(request))
        return Submission(dropped.id, dropped)

    def wait(
        self,
        submission: Submission | str,
        timeout: float | None = None,
        *,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Response:
        """Return the response of a submission, or of an id, once it has come; ``meanwhile`` is called now and then.

        Raises :class:`TimedOutError` where ``timeout`` seconds were not enough: then it can be waited for again.
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
        """Yield submissions as they are done; ``meanwhile`` is called now and then.

        With a ``bound`` no more is taken from ``submissions`` while so many are on their way. So with a generator that
        submits, no more than that is submitted at once. Raises :class:`TimedOutError` where ``timeout`` seconds were
        not enough for all.
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

        Whoever stops early leaves those that are on their way: they go on.
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
        """Wait until a submission is taken in, and return its response where it was refused by then.

        Where ``timeout`` seconds were not enough, nothing is known yet.
        """
        deadline, pause, watch = time.monotonic() + timeout, Pause(), Watch(self.transport)
        watch.add(submission)
        while self.transport.is_dropped(submission.file) and time.monotonic() < deadline:
            time.sleep(pause.next())
        watch.look()
        return submission.response if submission.response and submission.response.status == response.REJECTED else None

    def status(self, id: str) -> Response | None:
        """Return the response of an id, or the response so far; None where nothing is known of it (yet)."""
        data, _ = self.transport.look(id)
        return None if data is None else response.read(data)

    def cancel(self, submission: Submission | str) -> None:
        """Ask for the end of a submission of yours; its response comes as ever."""
        self.transport.cancel(self._of(submission).id)

    def outputs(self, submission: Submission | str, *, case: str | None = None) -> dict[str, bytes]:
        """Return the files that came back of the run, or of a ``case``, by their names; waits for the response."""
        from spoold.client import outputs  # noqa: PLC0415 - few ask for files

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

        It is made where it is missing. A file that is there already is replaced with ``over``, and otherwise an error.
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
                raise TimedOutError(f"{watch}: no response within {timeout:g} s; it is not lost: wait for it again")
            else:
                meanwhile()
                time.sleep(pause.next() if left is None else pause.next(left))
