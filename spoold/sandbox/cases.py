"""A job of many cases: compiled once, then run once for each case, from what compile.sh left.

Spec: spool-layout.md, "Cases". Each case runs as a job of its own, and its container holds nothing of another case. An
archive of the work directory goes from the container that compiled to all the others. So a case may run in any
container, and nothing is compiled again where a container is lost. The files that come back of all cases lie in one
place, so they take no more memory than those of one case.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

from spoold.model.errors import ClientError
from spoold.model.job import Job, JobCase, JobResult
from spoold.model.outputs import Left, Returned
from spoold.model.response import SKIPPED_PHASE, Outcome, Phase
from spoold.sandbox import Check, Judge, RunCancelledError, interactors, returned
from spoold.sandbox.archive import Archive
from spoold.sandbox.checkers import Checker, Checkers
from spoold.sandbox.parts import OnPhase, Part, Runs
from spoold.sandbox.talk import Side
from spoold.sandbox.verdict import killed_whole

NO_ROOM = "there is no room for the files that compile.sh left"
Ended = Callable[[Phase, list[str]], Check | None]


def run_cases(
    job: Job, judge: Judge | None, run: Runs, on_phase: OnPhase, checkers: Checkers, *, beside: Runs | None = None
) -> JobResult:
    """Run all cases of ``job`` that the ``judge`` wants; raises what ``run`` raises.

    ``beside`` runs an interactor, in another container than that of the program.
    """
    if judge is None:
        raise ValueError("a bug: there are cases, but no judge")
    with contextlib.closing(Archive(job.scratch)) as archive:
        compiled, notes = SKIPPED_PHASE, list[str]()
        if job.compile is not None:
            result = run(job, Part(after=archive), on_phase)
            compiled, notes = result.compile, result.notes
        checker = Checker(job.checker, checkers, beside if beside and job.talks else run)
        cases = _Cases(job, archive, run)
        if compiled.outcome in (Outcome.OK, Outcome.SKIPPED):
            for number, case in enumerate(job.cases):
                if not judge.wants(number):
                    continue
                if job.talks:
                    cases.talk(number, case, judge, checker)
                elif check := cases.run(number, case, partial(judge.ended, number)):
                    judge.checked(number, checker.check(check))
        return JobResult(compile=compiled, run=SKIPPED_PHASE, notes=notes, of_cases=cases.files)


class _Cases:
    """The cases of one job. Each begins with ``archive``. ``files`` has the files that came back, by number of case."""

    def __init__(self, job: Job, archive: Archive, run: Runs) -> None:
        self._job, self._archive, self._run = job, archive, run
        self._left = Left(job.outputs) if job.outputs else None
        self._contents = returned.room(job.scratch)
        self.files: dict[int, Returned] = {}

    def talk(self, number: int, case: JobCase, judge: Judge, checker: Checker) -> None:
        """Run a case together with its interactor, and tell the ``judge`` of both."""

        def run(side: Side, ended: Ended) -> None:
            self.run(number, case, ended, side)

        def cancelled(run: Phase, notes: list[str]) -> None:
            judge.ended(number, run, notes)

        judge.talked(number, interactors.talk(checker, case, judge.meets(number), run, cancelled))

    def run(self, number: int, case: JobCase, ended: Ended, side: Side | None = None) -> Check | None:
        """Run a case, and tell ``ended`` of it; return what is to be checked. It may be one ``side`` of a talk."""
        ran: list[Phase] = []
        job = self._job.of_case(case, self._left.of(case.outputs) if self._left else None)
        part = Part(contents=self._contents, side=side)
        if self._archive.size:
            job, part = job.without_files(), part._replace(before=self._archive)
        try:
            result = self._run(job, part, lambda _, phase: ran.append(phase))
        except RunCancelledError:
            for phase in ran:
                ended(phase, [])
            raise
        except ClientError as error:
            if not self._archive.size:
                raise
            return ended(killed_whole(job.run, 0.0), [f"{NO_ROOM}: {error}"])
        if self._left and result.outputs:
            self._left.take(result.outputs)
            self.files[number] = result.outputs
        return ended(result.run, result.notes)
