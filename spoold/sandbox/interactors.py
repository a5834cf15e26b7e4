"""Interactors: the program of a case runs together with one, and each reads what the other prints.

Spec: spool-layout.md, "Interactors". An interactor is compiled and kept as a checker is. See ``talk`` for how the two
are joined.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from spoold.model.job import JobCase, JobResult
from spoold.model.response import SKIPPED_PHASE, Outcome, Phase
from spoold.sandbox import Check, RunCancelledError, Talked
from spoold.sandbox.checkers import Checker
from spoold.sandbox.talk import LonelyError, Side, Talk

Ended = Callable[[Phase, list[str]], None]


def talk(checker: Checker, case: JobCase, check: Check, run: Callable[[Side, Ended], None], cancelled: Ended) -> Talked:
    """Run the interactor, and by ``run`` the program of a case. Raises what running either of them raises.

    ``cancelled`` is told of a program that a cancel ended. Where the interactor cannot be compiled, the program is not
    run.
    """
    if not checker.is_compiled():
        return Talked(SKIPPED_PHASE, [], checker.check(check), is_decided=True, transcript="")
    both = Talk(check.well)
    told: list[tuple[Phase, list[str]]] = []
    interactor = _Interactor(checker, check, case, both)
    interactor.start()
    try:
        run(both.program, lambda phase, notes: told.append((phase, notes)))
    except LonelyError:
        pass  # the interactor's thread says why
    except BaseException:
        both.give_up()
        interactor.join()
        for phase, notes in told:
            if phase.outcome is Outcome.CANCELLED:
                cancelled(phase, notes)
        raise
    if not both.program.begun.is_set():
        both.give_up()
    both.program.ended(b"")
    interactor.join()
    if interactor.error and not (told and isinstance(interactor.error, LonelyError)):
        raise interactor.error
    phase, notes = told[0] if told else (SKIPPED_PHASE, [])
    is_decided = both.first is both.interactor or both.program.stopped or not told
    return Talked(phase, notes, interactor.result, is_decided, both.transcript.text())


class _Interactor(threading.Thread):
    """Runs the interactor of one case. ``error`` is what was raised, if anything was."""

    def __init__(self, checker: Checker, check: Check, case: JobCase, both: Talk) -> None:
        super().__init__(name="interactor", daemon=True)
        self._checker, self._check, self._case, self._both = checker, check, case, both
        self.result: JobResult | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        side = self._both.interactor
        try:
            self.result = self._checker.check(self._check, side, self._case.limits.time)
        except RunCancelledError as error:  # the program's thread sees the cancel too, and tells how its program ended
            self.error = error
        except BaseException as error:  # noqa: BLE001 - the thread that waits for this one raises it
            self.error = error
            self._both.give_up()
        if not side.begun.is_set():
            self._both.give_up()
        side.ended(b"")
