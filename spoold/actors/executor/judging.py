"""Judging: the cases of one submission get their verdicts as they end.

Spec: spool-layout.md, "Cases". The sandbox reports each case here when it ends. The whole output of a program is
compared. After that only as much of it is kept as the response has room for. All cases share that room.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable

import msgspec

from spoold.model.cases import Case
from spoold.model.checkers import (
    WELL,
    arguments_for,
    feedback_of,
    files_for,
    files_for_talk,
    judgement,
    not_compiled,
)
from spoold.model.compare.rules import Compare, rules_for
from spoold.model.job import Job, JobResult
from spoold.model.response import SKIPPED_PHASE, CaseResult, Outcome, Phase, Summary, Verdict
from spoold.model.short import phase_in_short
from spoold.model.submission import Checker, Interactor, Request
from spoold.model.verdicts import Judgement, checked, judged, printed, skipped, stops, summary, talked
from spoold.model.words import shown
from spoold.sandbox import Check, Talked

MOST_OUTPUT = 16 * 1024 * 1024  # characters of output that a response holds, of all cases together
SHORT = 1024  # bytes that are kept of each output of a case that has no room in that


class Judging:
    """The cases of ``request``, as a ``spoold.sandbox.Judge``. Calls ``changed`` each time there is one more result.

    Once ``seconds`` have passed since the first case was wanted, no further case is wanted. ``notes`` say so.
    """

    def __init__(
        self,
        request: Request,
        changed: Callable[[list[CaseResult]], None],
        checker: Job | None = None,
        lost: str = "",
        *,
        seconds: float = math.inf,
    ) -> None:
        self._request, self._checker, self._lost = request, checker, lost
        self._changed = changed
        self._seconds, self._began = seconds, math.nan  # begin: when the first was wanted (monotonic clock)
        self.notes: list[str] = []
        self._room = MOST_OUTPUT
        self._waits: CaseResult | None = None  # a result that waits for its checker
        self.results: list[CaseResult] = []

    def wants(self, number: int) -> bool:
        """Tell whether a case is to be run. A case that is not is skipped, or lacks its interactor."""
        if not self._is_late() and not stops(self._request.stop_on_failure, self._request.cases, self.results):
            if self._request.interactor is None or self._checker is not None:
                return True
            self._judge_talk(number, SKIPPED_PHASE, [], Judgement(Verdict.JUDGE_ERROR, message=self._lost))
            return False
        self.results.append(skipped(self._request.cases[number]))
        return False

    def _is_late(self) -> bool:
        if math.isnan(self._began):
            self._began = time.monotonic()
        late = time.monotonic() - self._began > self._seconds
        if late and not self.notes:
            self.notes.append(
                f"cases: all from {shown(self._request.cases[len(self.results)].name)} on were skipped, since cases "
                f"are begun for {self._seconds:g} seconds at most"
            )
        return late

    def ended(self, number: int, run: Phase, notes: list[str]) -> Check | None:
        """Judge a case that was run, or return what its checker is to look at."""
        case = self._request.cases[number]
        if self._request.interactor:  # it was cancelled
            self._add(judged(case, None, run, notes))
            return None
        if self._request.checker is None:
            self._add(judged(case, rules_for(case.compare or self._request.compare or Compare()), run, notes))
            return None
        result = judged(case, None, run, notes)
        if result.verdict is not Verdict.ACCEPTED:
            self._add(result)
        elif self._checker is None:
            self._add(checked(case, result, Judgement(Verdict.JUDGE_ERROR, message=self._lost)))
        else:
            self._waits = result
            return self._check(case, printed(run))
        return None

    def _check(self, case: Case, output: bytes) -> Check:
        checker = self._request.checker
        assert checker  # noqa: S101 - for mypy: without a checker ended() compares, and asks for no check
        answer = (case.expected and case.expected.printed("expected.stdout")) or b""
        return Check(
            files=files_for(self._request.stdin_of(case), answer, output),
            stdin=output if checker.protocol == "kattis" else b"",
            args=arguments_for(checker.protocol, checker.args),
            outputs=feedback_of(checker.protocol),
        )

    def checked(self, number: int, result: JobResult) -> None:
        """Judge a case by what its checker found."""
        case, checker = self._request.cases[number], self._request.checker
        assert checker and self._waits  # noqa: S101, PT018 - for mypy: only what was asked for is told here
        self._add(checked(case, self._waits, _found(checker, case, result)))
        self._waits = None

    def meets(self, number: int) -> Check:
        """Return what the interactor of a case gets."""
        case, interactor = self._request.cases[number], self._request.interactor
        assert interactor  # noqa: S101 - for mypy: only a request with an interactor has a job that asks for this
        answer = (case.expected and case.expected.printed("expected.stdout")) or b""
        return Check(
            files=files_for_talk(self._request.stdin_of(case), answer),
            stdin=b"",
            args=arguments_for(interactor.protocol, interactor.args),
            outputs=feedback_of(interactor.protocol),
            well=WELL[interactor.protocol],
        )

    def talked(self, number: int, talked: Talked) -> None:
        """Judge a case by how its program ended, and by what its interactor found."""
        case, interactor = self._request.cases[number], self._request.interactor
        assert interactor  # noqa: S101 - for mypy, as above
        if talked.result is None:
            self._add(judged(case, None, talked.run, talked.notes))
            return
        found = _found(interactor, case, talked.result)
        self._judge_talk(
            number, talked.run, talked.notes, found, is_decided=talked.is_decided, transcript=talked.transcript
        )

    def _judge_talk(
        self,
        number: int,
        run: Phase,
        notes: list[str],
        found: Judgement,
        *,
        is_decided: bool = True,
        transcript: str = "",
    ) -> None:
        case = self._request.cases[number]
        result = talked(case, run, notes, found, is_decided=is_decided)
        if transcript and not case.hidden:
            result = msgspec.structs.replace(result, interaction=transcript)
        self._add(result)

    def _add(self, result: CaseResult) -> None:
        self.results.append(self._fitted(result))
        self._changed(self.results.copy())

    def _fitted(self, result: CaseResult) -> CaseResult:
        size = _size(result)
        if size > self._room:
            result = msgspec.structs.replace(result, run=phase_in_short(result.run, SHORT), interaction=msgspec.UNSET)
            size = _size(result)
        self._room = max(0, self._room - size)
        return result

    def all(self) -> list[CaseResult]:
        """Return the result of each case. Cases that never ran are skipped."""
        return [*self.results, *map(skipped, self._request.cases[len(self.results) :])]

    def summary(self) -> Summary:
        """Return the summary of all cases."""
        return summary(self._request.cases, self.results)


def _size(result: CaseResult) -> int:
    """Return the characters of a result that are outputs or a talk."""
    talk = result.interaction if isinstance(result.interaction, str) else ""
    return len(result.run.stdout) + len(result.run.stderr) + len(talk)


def _found(grader: Checker | Interactor, case: Case, result: JobResult) -> Judgement:
    """Return what a checker or an interactor found, by its run."""
    if result.compile.outcome not in (Outcome.OK, Outcome.SKIPPED):
        return not_compiled(result, grader.KIND)
    lost = [note.removeprefix("run.outputs: ") for note in (result.outputs.notes if result.outputs else [])]
    return judgement(grader.protocol, result.run, case.points, _feedback(result), who=grader.KIND, lost=lost)


def _feedback(result: JobResult) -> dict[str, bytes]:
    """Return the files that a checker left, by their names."""
    if result.outputs is None:
        return {}
    with contextlib.closing(result.outputs.contents) as contents:
        return {each.name: b"".join(contents.pieces(each.at, each.size)) for each in result.outputs.files}
