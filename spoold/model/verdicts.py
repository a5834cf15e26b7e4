"""Verdicts: judges each case, and all cases together.

Spec: spool-layout.md, "Cases". Pure. A verdict goes by how the program ended, as the supervisor measured it, and by the
program's output, all of which has to be there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import UNSET
from msgspec.structs import replace

from spoold.model.cases import Case, Expected, StopOnFailure
from spoold.model.compare.excerpts import Difference
from spoold.model.compare.rules import Rules
from spoold.model.compare.walk import first_difference
from spoold.model.response import (
    SKIPPED_PHASE,
    CaseResult,
    Outcome,
    Phase,
    Score,
    Summary,
    Verdict,
    decode_stream,
)

BY_OUTCOME = {
    Outcome.TIME_LIMIT: Verdict.TIME_LIMIT,
    Outcome.CPU_LIMIT: Verdict.TIME_LIMIT,
    Outcome.MEMORY_LIMIT: Verdict.MEMORY_LIMIT,
    Outcome.OUTPUT_LIMIT: Verdict.OUTPUT_LIMIT,
    Outcome.FILE_LIMIT: Verdict.OUTPUT_LIMIT,
    Outcome.CANCELLED: Verdict.SKIPPED,
    Outcome.SKIPPED: Verdict.SKIPPED,
    Outcome.INTERNAL_ERROR: Verdict.JUDGE_ERROR,
}
NO_FAILURE = (Verdict.ACCEPTED, Verdict.SKIPPED)


class Judgement(NamedTuple):
    """The finding of a checker: a verdict, the points where it is partial, and the checker's words."""

    verdict: Verdict
    points: float | None = None
    message: str = ""


def judged(case: Case, rules: Rules | None, run: Phase, notes: Sequence[str] = ()) -> CaseResult:
    """Return the result of a ``case``, by the ``run`` of its program. ``notes`` are further notes on the run.

    Without ``rules`` nothing is compared. Then a case that is accepted here is left for a checker to look at.
    """
    verdict, difference, message = _verdict(case.expected, rules, run)
    said = "; ".join(filter(None, (message, *notes)))
    return CaseResult(
        name=case.name,
        verdict=verdict,
        points=case.points if verdict is Verdict.ACCEPTED else 0.0,
        run=_hidden(run) if case.hidden else run,
        difference=UNSET if case.hidden or difference is None else difference,
        message=UNSET if case.hidden or not said else said,
    )


def checked(case: Case, so_far: CaseResult, found: Judgement) -> CaseResult:
    """Return the result of a ``case`` with the finding of its checker. ``so_far`` is the result without it."""
    points = {Verdict.ACCEPTED: case.points, Verdict.PARTIAL: found.points or 0.0}.get(found.verdict, 0.0)
    words = [so_far.message] if isinstance(so_far.message, str) else []
    said = "; ".join(filter(None, (found.message, *words)))
    return replace(so_far, verdict=found.verdict, points=points, message=UNSET if case.hidden or not said else said)


def talked(case: Case, run: Phase, notes: Sequence[str], found: Judgement, *, is_decided: bool) -> CaseResult:
    """Return the result of a ``case`` whose program talked with an interactor, which ``found`` what it tells.

    ``is_decided`` says that the interactor was done with the program before that ended. How the program ended after a
    wrong answer is then no failure of its own.
    """
    alone = judged(case, None, run, notes)
    if found.verdict is Verdict.JUDGE_ERROR or alone.verdict is Verdict.ACCEPTED:
        return checked(case, alone, found)
    if found.verdict is Verdict.WRONG_ANSWER and is_decided:
        return checked(case, replace(alone, message=UNSET), found)
    return alone


def skipped(case: Case) -> CaseResult:
    """Return the result of a ``case`` that was not run."""
    return CaseResult(name=case.name, verdict=Verdict.SKIPPED, points=0.0, run=SKIPPED_PHASE)


def _verdict(expected: Expected | None, rules: Rules | None, run: Phase) -> tuple[Verdict, Difference | None, str]:
    assert isinstance(run.outcome, Outcome)  # noqa: S101 - for mypy: it has ended
    if verdict := BY_OUTCOME.get(run.outcome):
        return verdict, None, ""
    if verdict := _of_exit(expected, run):
        wanted = expected and expected.exit_code
        how = run.signal if run.exit_code is None else run.exit_code
        return verdict, None, "" if wanted is None else f"it ended with {how}, but {wanted} was expected"
    if run.stdout_truncated is True:
        return (
            Verdict.OUTPUT_LIMIT,
            None,
            "it printed more than its output limit, so the rest cannot be judged",
        )
    wanted_output = expected.printed("expected.stdout") if expected else None
    if wanted_output is None or rules is None:
        return Verdict.ACCEPTED, None, ""
    difference = first_difference(wanted_output, printed(run), rules)
    return (Verdict.ACCEPTED, None, "") if difference is None else (Verdict.WRONG_ANSWER, difference, "")


def _of_exit(expected: Expected | None, run: Phase) -> Verdict | None:
    """Return the verdict on how a program ended. None where it ended as it should."""
    if expected is None or expected.exit_code is None:
        return None if run.outcome is Outcome.OK else Verdict.RUNTIME_ERROR
    if run.exit_code == expected.exit_code:
        return None
    return Verdict.WRONG_ANSWER if run.outcome is Outcome.OK else Verdict.RUNTIME_ERROR


def printed(run: Phase) -> bytes:
    """Return the bytes that were kept of a program's standard output."""
    return decode_stream(run.stdout, run.stdout_encoding)


def _hidden(run: Phase) -> Phase:
    """Return what may be told of a hidden case: its end and what it used, but nothing that tells of its input."""
    return Phase(outcome=run.outcome, signal=run.signal, time=run.time, cpu_time=run.cpu_time, memory=run.memory)


def stops(how: StopOnFailure, cases: Sequence[Case], results: Sequence[CaseResult]) -> bool:
    """Tell whether the next case is skipped because a case before it failed: any one, or one of its group (``how``)."""
    if how is False:
        return False
    group = cases[len(results)].group
    return any(
        result.verdict not in NO_FAILURE and (how is True or case.group == group)
        for case, result in zip(cases, results, strict=False)
    )


def summary(cases: Sequence[Case], results: Sequence[CaseResult]) -> Summary:
    """Return the result of all ``cases`` together. Cases without a result were skipped."""
    whole = [*results, *map(skipped, cases[len(results) :])]
    named = {case.group: None for case in cases if case.group}
    groups = {
        name: _score(
            *zip(*((case, of) for case, of in zip(cases, whole, strict=True) if case.group == name), strict=True)
        )
        for name in named
    }
    score = _score(cases, whole)
    return Summary(
        verdict=score.verdict,
        accepted=score.accepted,
        of=score.of,
        points=score.points,
        of_points=score.of_points,
        groups=groups or UNSET,
    )


def _score(cases: Sequence[Case], results: Sequence[CaseResult]) -> Score:
    verdicts = [result.verdict for result in results]
    end = Verdict.SKIPPED if Verdict.SKIPPED in verdicts else Verdict.ACCEPTED
    return Score(
        verdict=next((verdict for verdict in verdicts if verdict not in NO_FAILURE), end),
        accepted=verdicts.count(Verdict.ACCEPTED),
        of=len(verdicts),
        points=math.fsum(result.points for result in results),
        of_points=math.fsum(case.points for case in cases),
    )
