"""Run many programs through a spool, up to a number at once: the common part of ``batch`` and ``grade``.

Theory of operation. The id of a program is made from its name and content (see ``stable``), so a sweep does not have to
remember anything. Before a program is submitted, the sweep looks for its answer, and takes the answer if it is there. A
program that is on its way is dropped again, which has no effect. So a sweep that ended early, by ^C, kill -9 or a power
cut, goes on when it is started again.

If a cancel or a failure of the service ended a submission, its answer says nothing about the program. That answer stays
until somebody asks for another attempt. The id then includes the number of the attempt, and later sweeps find it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import NamedTuple

from msgspec.structs import replace

from spoold import client
from spoold.cli import stable
from spoold.cli.record import Record
from spoold.client import names
from spoold.client.response import CANCELLED, INTERNAL_ERROR, REJECTED, Response
from spoold.client.transport import Dropped, digest
from spoold.model.errors import SpooldError

JOBS = 64  # submissions on their way at once
WINDOW = 32  # programs whose answers are looked for at once; over ssh that is one question
ROOM = 32 << 20  # bytes of the requests in a window
KEPT = 2000  # characters of a shortened output; a multiple of 4, so base64 stays whole
# Statuses that say nothing about the program itself.
AGAIN = frozenset({CANCELLED, INTERNAL_ERROR, REJECTED, "DEPENDENCIES_FAILED"})


class Program(NamedTuple):
    """A program: its name, and a function that makes its request and may raise :class:`SpooldError` or OSError."""

    name: str
    request: Callable[[], bytes]


class Result(NamedTuple):
    """The result of a program. ``raw`` is the exact response.

    ``id`` and ``raw`` are empty if the program was refused here, before it was sent. ``was_there`` says that its answer
    was there before this run.
    """

    name: str
    id: str
    response: Response
    raw: bytes
    was_there: bool = False


def brief(result: Result) -> Result:
    """Return a result with only the beginning of standard output and the end of standard error."""
    phases = {
        name: replace(phase, stdout=phase.stdout[:KEPT], stderr=phase.stderr[-KEPT:])
        for name in ("dependencies", "compile", "run")
        for phase in (getattr(result.response, name),)
    }
    return result._replace(response=replace(result.response, cases=None, outputs=None, **phases), raw=b"")


class _Made(NamedTuple):
    place: int
    program: Program
    data: bytes
    id: str


def nothing(*_: object) -> None:
    """Do nothing."""


def run(
    spool: client.Spool,
    programs: Iterable[Program],
    *,
    jobs: int = JOBS,
    again: bool = False,
    timeout: float | None = None,
    told: Callable[[Result], object] = nothing,
    kept: Callable[[Result], Result] = lambda result: result,
    meanwhile: Callable[[client.Submission | None], object] = nothing,
) -> list[Result]:
    """Run programs, ``jobs`` at once, and return their results in the same order.

    ``told`` gets each result as soon as it comes. ``kept`` returns the part of a result to keep, because outputs may be
    large. ``again`` makes another attempt for programs that were cancelled, or failed without being run. ``meanwhile``
    is called from time to time, with the submission that has been on its way longest. Raises :class:`SpoolError`.
    """
    sweep = Sweep(spool, again=again, told=told, kept=kept)
    submitted = sweep.submitted(programs)
    for submission in spool.as_completed(
        submitted, bound=jobs, timeout=timeout, meanwhile=lambda: meanwhile(sweep.oldest())
    ):
        sweep.take(submission)
    return [sweep.results[place] for place in sorted(sweep.results)]


class Sweep:
    """The programs of one sweep: those on their way, and the results of the others by their places."""

    def __init__(
        self,
        spool: client.Spool,
        *,
        again: bool,
        told: Callable[[Result], object],
        kept: Callable[[Result], Result],
    ) -> None:
        self._spool = spool
        self._again = again
        self._told = told
        self._kept = kept
        self._key = stable.secret()
        self._record = Record(spool)
        self._pending: dict[client.Submission, _Made] = {}
        self.results: dict[int, Result] = {}

    def submitted(self, programs: Iterable[Program]) -> Iterator[client.Submission]:
        """Submit programs one by one, as the caller asks for more. Where an answer is there, take it instead."""
        for window in self._windows(programs):
            wanted = [names.response_name(made.id) for made in window]
            found = self._spool.transport.answers(wanted, 0.0)
            for made in window:
                submission = self._settled(made, found.get(names.response_name(made.id)))
                if submission is None:
                    continue
                self._pending[submission] = made
                yield submission

    def _windows(self, programs: Iterable[Program]) -> Iterator[list[_Made]]:
        window: list[_Made] = []
        for place, program in enumerate(programs):
            made = self._make(place, program)
            if made is None:
                continue
            window.append(made)
            if len(window) == WINDOW or sum(len(each.data) for each in window) > ROOM:
                yield window
                window = []
        yield window

    def _make(self, place: int, program: Program) -> _Made | None:
        try:
            data = program.request()
        except (SpooldError, client.SpoolError, OSError) as error:
            self._tell(place, Result(program.name, "", Response(status=REJECTED, reason=said(error)), b""))
            return None
        return _Made(place, program, data, stable.id_of(program.name, data, self._key))

    def _settled(self, made: _Made, answer: bytes | None) -> client.Submission | None:
        """Take the answer that is there, and return None; or submit the program, under the id of its attempt."""
        for attempt in count(1):
            id_ = stable.id_of(made.program.name, made.data, self._key, attempt)
            if attempt > 1:
                answer = self._spool.transport.answers([names.response_name(id_)], 0.0).get(names.response_name(id_))
            there = self._taken(id_, made, answer)
            if there is None:
                submission = self._spool.submit(made.data, id=id_)
                self._record.add(submission.id, made.program.name)
                return submission
            if there.response.status not in AGAIN or not (self._again or self._has_another(made, attempt)):
                self._tell(made.place, there)
                return None
        raise AssertionError  # count() never ends

    def _taken(self, id_: str, made: _Made, answer: bytes | None) -> Result | None:
        if not answer:
            return None
        submission = client.Submission(id_, Dropped(id_, f"{id_}.json", None, digest(made.data)))
        submission.take(names.response_name(id_), answer, self._spool.transport)
        if submission.response is None:  # it answers another request, and submitting will report that
            return None
        return Result(made.program.name, id_, submission.response, submission.raw, was_there=True)

    def _has_another(self, made: _Made, attempt: int) -> bool:
        _, is_known = self._spool.transport.look(stable.id_of(made.program.name, made.data, self._key, attempt + 1))
        return is_known

    def oldest(self) -> client.Submission | None:
        """Return the submission that has been on its way longest."""
        return next(iter(self._pending), None)

    def take(self, submission: client.Submission) -> None:
        """Take the result of a submission."""
        made = self._pending.pop(submission)
        try:
            response = submission.result()
        except client.AnswerError as error:
            response = Response(id=submission.id, status=INTERNAL_ERROR, reason=said(error))
        self._tell(made.place, Result(made.program.name, submission.id, response, submission.raw))

    def _tell(self, place: int, result: Result) -> None:
        self._told(result)
        self.results[place] = self._kept(result)


def said(error: Exception) -> str:
    """Return the text of an error, for a result."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
