"""Where programs run: a job goes in, and its result comes out.

This package knows nothing of the spool, of Nix, or of any engine. Each engine is a folder of ``spoold.engines``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

from spoold.model.errors import SpooldError
from spoold.model.job import Job, JobFile, JobResult
from spoold.model.outputs import Wanted
from spoold.model.response import Phase


class RunCancelledError(SpooldError):
    """The caller's own event ended the run. The caller has been told of each phase that ran."""


class Check(NamedTuple):
    """The input of one run of a job's checker: the files beside it, its standard input and its arguments.

    ``outputs`` says which of its files come back. An interactor gets no standard input from here. Its program may go on
    after it has ended with one of the exit codes ``well``.
    """

    files: list[JobFile]
    stdin: bytes
    args: list[str]
    outputs: Wanted | None = None
    well: Collection[int] = ()


class Talked(NamedTuple):
    """The result of a talk: the run of the program with notes, the interactor's result, and the words of both.

    There is no ``result`` where the program could not be begun. ``is_decided`` tells that the interactor was done with
    the program before the program ended.
    """

    run: Phase
    notes: list[str]
    result: JobResult | None
    is_decided: bool
    transcript: str


class Judge(Protocol):
    """The caller's part in a job with cases: it decides which cases are run, and hears of them in their order."""

    def wants(self, number: int) -> bool:
        """Tell whether the case of this number is to be run, now that the cases before it have ended."""

    def ended(self, number: int, run: Phase, notes: list[str]) -> Check | None:
        """Hear how a case ended, and the notes on it; return what is to be checked. A cancelled case is told too."""

    def checked(self, number: int, result: JobResult) -> None:
        """Hear the result of a check. Where compiling the checker failed, the ``run`` of the result is ``skipped``."""

    def meets(self, number: int) -> Check:
        """Return what the interactor of a case gets. Only a job whose checker ``talks`` asks for this."""

    def talked(self, number: int, talked: Talked) -> None:
        """Hear how the program of a case and its interactor ended. A cancelled case is told to ``ended``."""


class Sandbox(Protocol):
    """An engine.

    ``run`` is called from several threads at once. It calls ``on_phase`` with ``"compile"`` or ``"run"`` and the phase
    as soon as the phase has ended. For a job with cases it calls ``on_phase`` with ``"compile"`` only, and tells the
    ``judge`` of the cases. The result then says that ``run`` was skipped. An engine that can run part of a job can
    leave this to ``cases.run_cases``.

    For a job that is ``live``, ``run`` also calls ``on_output`` while a phase runs, with the same two arguments. The
    phase is then as it is so far, see ``model.tails``. The calls come once a second at most. A phase of less than a
    second causes none.

    Once ``cancelled`` is set, the phase that runs is ended. ``on_phase`` gets it with the outcome ``cancelled`` and all
    that there is of it. Then ``run`` raises ``RunCancelledError``. This takes some seconds at most, whatever the job
    does. The result of a job that ended by itself before that is returned as usual.

    ``run`` raises ``ClientError`` for a job that cannot be run at all through its own fault, ``TemporaryError`` where
    the engine is away, and ``OperatorError`` where only the operator can mend it.
    """

    def prepare(self) -> None:
        """Prepare what all runs need, check it, and remove what an earlier process left behind.

        The caller may call this again at any time, also while jobs run.
        """

    def run(
        self,
        job: Job,
        on_phase: Callable[[str, Phase], None],
        cancelled: threading.Event,
        judge: Judge | None = None,
        on_output: Callable[[str, Phase], None] | None = None,
    ) -> JobResult:
        """Run one job, and leave nothing behind, whatever happens. A job with cases needs a ``judge``."""

    def close(self) -> None:
        """Stop and remove everything that is left."""
