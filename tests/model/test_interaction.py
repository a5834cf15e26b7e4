"""Talks with an interactor: what people are shown of one, and which side a verdict goes by."""

from __future__ import annotations

import pytest

from spoold.model.cases import Case, Expected
from spoold.model.interaction import MOST, Transcript
from spoold.model.response import Outcome, Phase, Verdict
from spoold.model.verdicts import Judgement, talked


def test_each_line_says_whose_it_is() -> None:
    transcript = Transcript()
    assert transcript.text() == ""
    for data, of_program in (
        (b"5", True),
        (b"00\n", True),
        (b"higher\n\nmore", False),
        (b"\xff\n", True),
        (b"", False),
    ):
        transcript.add(data, of_program=of_program)
    assert transcript.text() == ">500\n<higher\n<\n<more\n>\ufffd\n"


def test_only_the_beginning_is_kept() -> None:
    transcript = Transcript()
    for _ in range(3):
        transcript.add(b"x" * (MOST // 2), of_program=True)
    transcript.add(b"more", of_program=False)
    assert transcript.text() == ">" + "x" * MOST + "\n...\n"


RIGHT, WRONG = Judgement(Verdict.ACCEPTED), Judgement(Verdict.WRONG_ANSWER, message="no")
BROKEN, HALF = Judgement(Verdict.JUDGE_ERROR, message="x"), Judgement(Verdict.PARTIAL, 1.0)


@pytest.mark.parametrize(
    ("outcome", "found", "is_decided", "verdict"),
    [
        (Outcome.OK, RIGHT, True, Verdict.ACCEPTED),
        (Outcome.OK, RIGHT, False, Verdict.ACCEPTED),
        (Outcome.OK, HALF, True, Verdict.PARTIAL),
        (Outcome.OK, WRONG, False, Verdict.WRONG_ANSWER),
        (Outcome.NONZERO_EXIT, RIGHT, True, Verdict.RUNTIME_ERROR),
        (Outcome.NONZERO_EXIT, WRONG, False, Verdict.RUNTIME_ERROR),
        (Outcome.NONZERO_EXIT, WRONG, True, Verdict.WRONG_ANSWER),
        (Outcome.SIGNALLED, WRONG, True, Verdict.WRONG_ANSWER),
        (Outcome.TIME_LIMIT, WRONG, False, Verdict.TIME_LIMIT),
        (Outcome.TIME_LIMIT, WRONG, True, Verdict.WRONG_ANSWER),
        (Outcome.CANCELLED, WRONG, True, Verdict.WRONG_ANSWER),
        (Outcome.CANCELLED, BROKEN, True, Verdict.JUDGE_ERROR),
        (Outcome.TIME_LIMIT, BROKEN, False, Verdict.JUDGE_ERROR),
        (Outcome.SKIPPED, BROKEN, True, Verdict.JUDGE_ERROR),
        (Outcome.OUTPUT_LIMIT, RIGHT, True, Verdict.OUTPUT_LIMIT),
    ],
)
def test_the_side_that_ends_first_decides(
    outcome: Outcome, found: Judgement, *, is_decided: bool, verdict: Verdict
) -> None:
    case = Case(name="a", points=2.0, expected=Expected(stdout="not compared"))
    result = talked(
        case, Phase(outcome=outcome, exit_code=0 if outcome is Outcome.OK else 1), [], found, is_decided=is_decided
    )
    assert result.verdict is verdict
    assert result.points == {Verdict.ACCEPTED: 2.0, Verdict.PARTIAL: 1.0}.get(verdict, 0.0)
