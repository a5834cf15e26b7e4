"""Run daemons over stand-in engines, to test many submissions: ``python -m tests.idle CONFIG ROLE,... LEVEL``.

The sandbox runs nothing. Standard input tells it what to do: ``nap SECONDS``, ``await FILE``, which goes on until the
file exists, or ``kill``, which ends the daemon's process. A cancelled job has printed its standard input. On SIGHUP the
daemons read CONFIG again. $SPOOLD_TEST_REST sets how many seconds they rest after an error of the host; unset, it is
the real time. $SPOOLD_TEST_SUBUID is the file of subordinate ranges.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from spoold import daemon, loop
from spoold.actors.builder import Builder, work
from spoold.actors.executor import Executor, slots
from spoold.config.file import load
from spoold.host import log, persons
from spoold.model.job import Job, JobResult
from spoold.model.response import SKIPPED_PHASE, Outcome, Phase, Stream, finished_phase
from spoold.model.states import Role
from spoold.sandbox import Judge, RunCancelledError
from spoold.spool import holding
from tests import returned
from tests.standins import PlainBackend


class IdleSandbox:
    """A sandbox that answers at once, with a large file where the job asks for files."""

    def prepare(self) -> None:
        """Do nothing: this sandbox needs nothing."""

    def close(self) -> None:
        """Do nothing: this sandbox leaves nothing."""

    def run(
        self,
        job: Job,
        on_phase: Callable[[str, Phase], None],
        cancelled: threading.Event,
        judge: Judge | None = None,
        on_output: Callable[[str, Phase], None] | None = None,  # noqa: ARG002
    ) -> JobResult:
        for number, case in enumerate(job.cases):
            if judge and judge.wants(number):
                ran: list[Phase] = []
                self.run(job.of_case(case), lambda _, phase, to=ran: to.append(phase), cancelled)  # type: ignore[misc] # mypy cannot infer it
                judge.ended(number, ran[0], [])
        if job.cases:
            return JobResult(compile=SKIPPED_PHASE, run=SKIPPED_PHASE)
        word, _, rest = job.stdin.decode().partition(" ")
        if word == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "nap" and cancelled.wait(float(rest)):
            self._end(job, on_phase)
        while word == "await" and not os.path.exists(rest):
            if cancelled.wait(0.02):
                self._end(job, on_phase)
        phase = _phase(b"", Outcome.OK, exit_code=0)
        on_phase("run", phase)
        outputs = returned.made(bytes(2_000_000)) if job.outputs else None
        return JobResult(compile=SKIPPED_PHASE, run=phase, outputs=outputs)

    def _end(self, job: Job, on_phase: Callable[[str, Phase], None]) -> NoReturn:
        on_phase("run", _phase(job.stdin, Outcome.CANCELLED))
        raise RunCancelledError(job.submission_id)


def _phase(printed: bytes, outcome: Outcome, exit_code: int | None = None) -> Phase:
    stdout, stderr = Stream(printed, len(printed)), Stream(b"", 0)
    return finished_phase(stdout=stdout, stderr=stderr, time=0.0, outcome=outcome, exit_code=exit_code)


daemon.ROLES[Role.EXECUTOR] = lambda settings: Executor(settings, lambda _: IdleSandbox())
daemon.ROLES[Role.BUILDER] = lambda settings: Builder(settings, PlainBackend())

if __name__ == "__main__":
    if rest := os.environ.get("SPOOLD_TEST_REST"):
        loop.RETRY = work.BACK_OFF = slots.BACK_OFF = holding.BACK_OFF = float(rest)
    persons.SUBUID = os.environ.get("SPOOLD_TEST_SUBUID", persons.SUBUID)
    log.set_up(level=sys.argv[3], journal=False)
    daemon.serve(load(sys.argv[1]), [Role(name) for name in sys.argv[2].split(",")], lambda: load(sys.argv[1]))
