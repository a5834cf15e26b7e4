"""Many programs through a spool, so many of them at once: what ``batch`` and ``grade`` have in common.

Theory of operation. The id of a program is made of its name and content (see ``stable``). So a sweep remembers nothing:
before a program is submitted its answer is looked for, and what is there is taken. One that is on its way is dropped
again, which does nothing. So a sweep that ended early, by ^C, kill -9 or a power cut, goes on when it is started again.

An answer that says nothing about the program, since a cancel or a failure of the service ended it, stays what it is
until somebody asks for another attempt. Then the id has the number of the attempt. All that come later find that one.
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
WINDOW = 32  # programs that are looked for at once: over ssh that is one question
ROOM = 32 << 20  # bytes of them
KEPT = 2000  # characters of an output in short; of base64 that is whole bytes
# Statuses that say nothing of the program itself.
AGAIN = frozenset({CANCELLED, INTERNAL_ERROR, REJECTED, "DEPENDENCIES_FAILED"})


class Program(NamedTuple):
    """A program by its name, and what makes its request: that may raise :class:`SpooldError`, or OSError."""

    name: str
    request: Callable[[], bytes]


class Result(NamedTuple):
    """What came of a program. ``raw`` is the response to the byte.

    Of what was refused here, before it was sent, ``id`` and ``raw`` are empty. ``was_there``: it had been run before.
    """

    name: str
    id: str
    response: Response
    raw: bytes
    was_there: bool = False


def brief(result: Result) -> Result:
    """Return a result with the beginning of its output alone, and the end of what it said on standard error."""
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
    """Run programs, ``jobs`` at once, and return what came of them in their order.

    ``told`` gets each result as soon as it is there, and ``kept`` says what of it is kept: outputs may be large.
    ``again`` tries once more what was cancelled, or failed without being run. ``meanwhile`` is called now and then,
    with the submission that is on its way for longest. Raises :class:`SpoolError`.
    """
    sweep = Sweep(spool, again=again, told=told, kept=kept)
    submitted = sweep.submitted(programs)
    for submission in spool.as_completed(
        submitted, bound=jobs, timeout=timeout, meanwhile=lambda: meanwhile(sweep.oldest())
    ):
        sweep.take(submission)
    return [sweep.results[place] for place in sorted(sweep.results)]


class Sweep:
    """The programs of one sweep: which are on their way, and what came of the others, by their places."""

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
        """Submit one program after the other, as they are asked for, but for those whose answers are there."""
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
        raise AssertionError  # no number is the last

    def _taken(self, id_: str, made: _Made, answer: bytes | None) -> Result | None:
        if not answer:
            return None
        submission = client.Submission(id_, Dropped(id_, f"{id_}.json", None, digest(made.data)))
        submission.take(names.response_name(id_), answer, self._spool.transport)
        if submission.response is None:  # it answers something else: submitting tells
            return None
        return Result(made.program.name, id_, submission.response, submission.raw, was_there=True)

    def _has_another(self, made: _Made, attempt: int) -> bool:
        _, is_known = self._spool.transport.look(stable.id_of(made.program.name, made.data, self._key, attempt + 1))
        return is_known

    def oldest(self) -> client.Submission | None:
        """Return the submission that is on its way for longest."""
        return next(iter(self._pending), None)

    def take(self, submission: client.Submission) -> None:
        """Take what came of a submission."""
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
