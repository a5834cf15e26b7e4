"""The result of a program and its cases, put together from its responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from spoold.cli.grading.cases import Test
from spoold.cli.sweep import Result
from spoold.client.response import COMPLETED, Case, Response, Score, Summary

ACCEPTED, PARTIAL, SKIPPED, JUDGE_ERROR = "accepted", "partial", "skipped", "judge_error"
COMPILE_ERROR = "compile_error"
NOT_FAILED = (ACCEPTED, SKIPPED)


class Graded(NamedTuple):
    """The result of a program.

    ``response`` has all cases of the program, as if it had been one request. ``cases`` are these with their tests.
    ``verdict`` is the verdict of a case, or tells why there are none: ``compile_error``, or a status in lower case.
    ``expected`` is the result that a package expects. ``as_expected`` tells whether that came true; None where the
    package expects nothing.
    """

    name: str
    ids: tuple[str, ...]
    response: Response
    cases: tuple[tuple[Test, Case], ...]
    summary: Summary
    expected: str = ""
    as_expected: bool | None = None
    why: str = ""
    was_there: bool = False

    @property
    def verdict(self) -> str:
        """Return the verdict, in one word."""
        return self.summary.verdict

    @property
    def time(self) -> float | None:
        """Return the CPU seconds of the slowest case."""
        return max((time for _, case in self.cases if (time := time_of(case)) is not None), default=None)

    @property
    def memory(self) -> int | None:
        """Return the bytes of the case that used most memory."""
        return max((case.run.memory for _, case in self.cases if case.run.memory is not None), default=None)


def time_of(case: Case) -> float | None:
    """Return the CPU seconds of a case, or its seconds on the clock where CPU time was not measured."""
    if case.run.cpu_time is not None:
        return case.run.cpu_time
    return case.run.time if isinstance(case.run.time, float | int) else None


def together(name: str, tests: Sequence[Test], results: Mapping[tuple[int, ...], Result]) -> Graded:
    """Return the result of a program from the results of its chunks of cases."""
    first = next(iter(results.values()))
    worst = next((result for result in results.values() if result.response.status != COMPLETED), first)
    response = worst.response
    by_place: dict[int, Case] = {}
    for chunk, result in results.items() if response.status == COMPLETED else ():
        by_place.update(zip(chunk, result.response.cases or (), strict=False))
    cases = tuple((tests[place], by_place[place]) for place in sorted(by_place))
    notes = [note for result in results.values() for note in result.response.notes]
    whole = replace(response, cases=[case for _, case in cases] or None, notes=list(dict.fromkeys(notes)))
    summary = summary_of(cases) if response.status == COMPLETED else _without_cases(response, tests)
    return Graded(
        name,
        tuple(result.id for result in results.values()),
        replace(whole, summary=summary),
        cases,
        summary,
        was_there=all(result.was_there for result in results.values()),
    )


def _without_cases(response: Response, tests: Sequence[Test]) -> Summary:
    verdict = COMPILE_ERROR if response.status == "COMPILE_FAILED" else response.status.lower()
    of_points = sum(test.points for test in tests)
    return Summary(verdict=verdict, accepted=0, of=len(tests), points=0, of_points=of_points)


def summary_of(cases: Sequence[tuple[Test, Case]]) -> Summary:
    """Return the score of all cases, and of each group."""
    groups: dict[str, list[tuple[Test, Case]]] = {}
    for test, case in cases:
        groups.setdefault(test.group, []).append((test, case))
    scores = {name: score_of(of) for name, of in groups.items() if name}
    whole = score_of(cases)
    return Summary(
        verdict=whole.verdict,
        accepted=whole.accepted,
        of=whole.of,
        points=whole.points,
        of_points=whole.of_points,
        groups=scores,
    )


def score_of(cases: Sequence[tuple[Test, Case]]) -> Score:
    """Return the score of some cases. The verdict is that of the first case that failed."""
    failed = next((case.verdict for _, case in cases if case.verdict not in NOT_FAILED), "")
    skipped = any(case.verdict == SKIPPED for _, case in cases)
    return Score(
        verdict=failed or (SKIPPED if skipped else ACCEPTED),
        accepted=sum(case.verdict == ACCEPTED for _, case in cases),
        of=len(cases),
        points=sum(case.points for _, case in cases),
        of_points=sum(test.points for test, _ in cases),
    )
