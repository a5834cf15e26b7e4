"""Where programs run: a job goes in, what came of it comes out.

Nothing here knows of the spool or of Nix, nor of any engine: each of these is a folder of ``spoold.engines``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

from spoold.model.errors import SpooldError
from spoold.model.job import Job, JobFile, JobResult
from spoold.model.outputs import Wanted
from spoold.model.response import Phase


class RunCancelledError(SpooldError):
    """The caller's own event ended the run; the caller knows why, and was told of each phase that ran."""


class Check(NamedTuple):
    """What a job's checker is run on: the files beside it, its standard input and its arguments.

    ``outputs`` is what is to come back of its files.
    """

    files: list[JobFile]
    stdin: bytes
    args: list[str]
    outputs: Wanted | None = None


class Judge(Protocol):
    """Who hears of the cases of one job, in their order, and decides which are run."""

    def wants(self, number: int) -> bool:
        """Tell whether the case of this number is to be run, now that those before it have ended."""

    def ended(self, number: int, run: Phase, notes: list[str]) -> Check | None:
        """Hear how it ended, and what there is to say of that; one that was cancelled too. Return what to check."""

    def checked(self, number: int, result: JobResult) -> None:
        """Hear what came of a check; where the checker was not compiled well, its ``run`` is ``skipped``."""


class Sandbox(Protocol):
    """An engine.

    ``run`` is called from several threads at once. ``on_phase`` gets ``"compile"`` or ``"run"`` and the phase as soon
    as it has ended. Of a job with cases it gets ``"compile"`` only, the ``judge`` hears of the cases, and the result
    says that ``run`` was skipped. ``cases.run_cases`` does that for an engine that can run part of a job.

    Of a job that is ``live``, ``on_output`` gets the same on the way: the phase that runs, as it is so far, see
    ``model.tails``. That comes once a second at most, and not at all of a phase that takes less.

    Once ``cancelled`` is set, the phase that runs is ended and told with the outcome ``cancelled`` and what there is of
    it. Then ``RunCancelledError`` is raised. That takes some seconds at most, whatever the job does. A job that ended
    by itself before is returned as ever.

    A job that cannot be run at all through its own fault raises ``ClientError``; an engine that is away
    ``TemporaryError``; one that only the operator can mend ``OperatorError``.
    """

    def prepare(self) -> None:
        """Make ready what all runs need, check it, and remove what an earlier process has left behind.

        May be called again at any time, also while jobs run.
        """

    def run(
        self,
        job: Job,
        on_phase: Callable[[str, Phase], None],
        cancelled: threading.Event,
        judge: Judge | None = None,
        on_output: Callable[[str, Phase], None] | None = None,
    ) -> JobResult:
        """Run one job; leaves nothing behind, whatever happens. A job with cases needs a ``judge``."""

    def close(self) -> None:
        """Stop and remove all that is left."""
