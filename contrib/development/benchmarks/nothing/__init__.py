"""An engine that does nothing, for measuring the cost of the spool alone. The spool is the real one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from benchmarks.programs import TRIVIAL
from spoold.config import Settings
from spoold.model.findings import Finding, Subject
from spoold.model.job import Job, JobResult, Runtime
from spoold.model.response import SKIPPED_PHASE, Outcome, Phase, Stream, finished_phase
from spoold.sandbox import Judge, Sandbox

PRINTED = TRIVIAL.output.encode()
RAN = finished_phase(
    stdout=Stream(PRINTED, len(PRINTED)), stderr=Stream(b"", 0), time=0, outcome=Outcome.OK, exit_code=0
)


class Nothing:
    """A sandbox that has the answer already."""

    def prepare(self) -> None:
        """Prepare nothing."""

    def run(
        self,
        job: Job,
        on_phase: Callable[[str, Phase], None],
        cancelled: threading.Event,
        judge: Judge | None = None,
        on_output: Callable[[str, Phase], None] | None = None,
    ) -> JobResult:
        """Run nothing, and report it as a real sandbox does."""
        del cancelled, on_output
        for number in range(len(job.cases)):
            if judge and judge.wants(number):
                judge.ended(number, RAN, [])
        if job.cases:
            return JobResult(compile=SKIPPED_PHASE, run=SKIPPED_PHASE)
        on_phase("run", RAN)
        return JobResult(compile=SKIPPED_PHASE, run=RAN)

    def close(self) -> None:
        """Close nothing."""


def make(settings: Settings, runtime: Runtime) -> Sandbox:
    """Return a sandbox that does nothing."""
    del settings, runtime
    return Nothing()


def examine(settings: Settings, runtime: Runtime | None) -> Iterator[Finding]:
    """Yield a finding that there is nothing to check."""
    del settings, runtime
    yield Subject("an engine that does nothing").note("it runs no job: each gets the same result at once")
