"""A job of many cases: compiled once, and then one run for each, from what compile.sh left.

Spec: spool-layout.md, "Cases". Each case is a job of its own, whose container finds nothing of another. An archive of
the work directory goes from the container that compiled to all others. So a case may run in any container, and where
one is lost nothing is compiled again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from spoold.model.job import Job, JobResult
from spoold.model.response import SKIPPED_PHASE, Outcome, Phase
from spoold.sandbox import Judge, RunCancelledError
from spoold.sandbox.archive import Archive
from spoold.sandbox.sizes import LAID

OnPhase = Callable[[str, Phase], None]


class Part(NamedTuple):
    """The part of a job that one container does: all of it, or only what is between two archives.

    It begins with the work directory ``before``. Where ``after`` is given it ends with compile.sh, and what that left
    goes there.
    """

    before: Archive | None = None
    after: Archive | None = None

    @property
    def beside(self) -> int:
        """Return the bytes of memory that its container needs for the archive."""
        return LAID * self.before.size if self.before else 0


WHOLE = Part()


class Runs(Protocol):
    """Runs part of a job in some container."""

    def __call__(self, job: Job, part: Part, on_phase: OnPhase) -> JobResult: ...


def run_cases(job: Job, judge: Judge | None, run: Runs, on_phase: OnPhase) -> JobResult:
    """Run all cases of ``job`` that the ``judge`` wants; raises what ``run`` does."""
    if judge is None:
        raise ValueError("there are cases, and nobody to judge them")
    with Archive() as archive:
        compiled, notes = SKIPPED_PHASE, list[str]()
        if job.compile is not None:
            result = run(job, Part(after=archive), on_phase)
            compiled, notes = result.compile, result.notes
        if compiled.outcome in (Outcome.OK, Outcome.SKIPPED):
            for number, case in enumerate(job.cases):
                if judge.wants(number):
                    _run_case(job.of_case(case), archive, run, partial(judge.ended, number))
        return JobResult(compile=compiled, run=SKIPPED_PHASE, notes=notes)


def _run_case(job: Job, archive: Archive, run: Runs, ended: Callable[[Phase, list[str]], None]) -> None:
    ran: list[Phase] = []
    part = WHOLE
    if archive.size:
        job, part = job.without_files(), Part(before=archive)
    try:
        result = run(job, part, lambda _, phase: ran.append(phase))
    except RunCancelledError:
        for phase in ran:
            ended(phase, [])
        raise
    ended(result.run, result.notes)
