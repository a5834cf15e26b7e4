"""Judging: the cases of one submission get their verdicts as they end.

Spec: spool-layout.md, "Cases". A slot has its sandbox tell each case here. What a program printed is compared whole,
and then only so much of it is kept as the response may hold of all cases.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from spoold.model.compare.rules import Compare, rules_for
from spoold.model.response import CaseResult, Phase, Summary
from spoold.model.short import phase_in_short
from spoold.model.submission import Request
from spoold.model.verdicts import judged, skipped, stops, summary

MOST_OUTPUT = 16 * 1024 * 1024  # characters that a response holds of what all cases printed
SHORT = 1024  # bytes of each output of a case that does not fit into that


class Judging:
    """The cases of ``request``, as a ``spoold.sandbox.Judge``. ``changed`` is called when there is one result more."""

    def __init__(self, request: Request, changed: Callable[[list[CaseResult]], None]) -> None:
        self._request = request
        self._changed = changed
        self._room = MOST_OUTPUT
        self.results: list[CaseResult] = []

    def wants(self, number: int) -> bool:
        """Tell whether a case is to be run; one that is not is skipped."""
        if not stops(self._request.stop_on_failure, self._request.cases, self.results):
            return True
        self.results.append(skipped(self._request.cases[number]))
        return False

    def ended(self, number: int, run: Phase, notes: list[str]) -> None:
        """Judge a case that was run."""
        case = self._request.cases[number]
        result = judged(case, rules_for(case.compare or self._request.compare or Compare()), run, notes)
        self.results.append(self._fitted(result))
        self._changed(self.results.copy())

    def _fitted(self, result: CaseResult) -> CaseResult:
        size = len(result.run.stdout) + len(result.run.stderr)
        if size > self._room:
            result = msgspec.structs.replace(result, run=phase_in_short(result.run, SHORT))
            size = len(result.run.stdout) + len(result.run.stderr)
        self._room = max(0, self._room - size)
        return result

    def all(self) -> list[CaseResult]:
        """Return what came of each case; those that never ran are skipped."""
        return [*self.results, *map(skipped, self._request.cases[len(self.results) :])]

    def summary(self) -> Summary:
        """Return what came of all of them together."""
        return summary(self._request.cases, self.results)
