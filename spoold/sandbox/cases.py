"""A job of many cases: compiled once, and then one run for each, from what compile.sh left.

Spec: spool-layout.md, "Cases". Each case is a job of its own, whose container finds nothing of another. An archive of
the work directory goes from the container that compiled to all others. So a case may run in any container, and where
one is lost nothing is compiled again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

from spoold.model.errors import ClientError
from spoold.model.job import Job, JobResult
from spoold.model.response import SKIPPED_PHASE, Outcome, Phase
from spoold.sandbox import Check, Judge, RunCancelledError
from spoold.sandbox.archive import Archive
from spoold.sandbox.checkers import Checker, Checkers
from spoold.sandbox.parts import WHOLE, OnPhase, Part, Runs
from spoold.sandbox.verdict import killed_whole

NO_ROOM = "there is no room for what compile.sh left"


def run_cases(job: Job, judge: Judge | None, run: Runs, on_phase: OnPhase, checkers: Checkers) -> JobResult:
    """Run all cases of ``job`` that the ``judge`` wants; raises what ``run`` does."""
    if judge is None:
        raise ValueError("there are cases, and nobody to judge them")
    with contextlib.closing(Archive(job.scratch)) as archive:
        compiled, notes = SKIPPED_PHASE, list[str]()
        if job.compile is not None:
            result = run(job, Part(after=archive), on_phase)
            compiled, notes = result.compile, result.notes
        checker = Checker(job.checker, checkers, run)
        if compiled.outcome in (Outcome.OK, Outcome.SKIPPED):
            for number, case in enumerate(job.cases):
                if judge.wants(number) and (
                    check := _run_case(job.of_case(case), archive, run, partial(judge.ended, number))
                ):
                    judge.checked(number, checker.check(check))
        return JobResult(compile=compiled, run=SKIPPED_PHASE, notes=notes)


def _run_case(job: Job, archive: Archive, run: Runs, ended: Callable[[Phase, list[str]], Check | None]) -> Check | None:
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
    except ClientError as error:
        if not archive.size:
            raise
        return ended(killed_whole(job.run, 0.0), [f"{NO_ROOM}: {error}"])
    return ended(result.run, result.notes)
