"""How results of cases become results of groups and of the whole, by the older grader and by the newer rules."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from spoold.cli.grading import cases, newer, older, testdata
from spoold.cli.grading.expected import Submission
from spoold.cli.grading.graded import together
from spoold.cli.grading.older import Outcome
from spoold.cli.grading.results import Judge
from spoold.cli.sweep import Result
from spoold.client.response import Case, Phase, Response
from spoold.model.errors import ClientError
from tests.grading import case_files, package

SCORING = "problem_format_version: 2025-09\ntype: scoring"
LETTERS = ("AC", "WA", "TLE", "RTE", "OLE")


def outcomes(*words: str) -> list[Outcome]:
    return [Outcome(word.partition(":")[0], float(word.partition(":")[2] or 0)) for word in words]


@pytest.mark.parametrize(
    ("flags", "results", "verdict", "score"),
    [
        ("", [], "AC", 0),
        ("", ["AC:1", "AC:2"], "AC", 3),
        ("", ["WA:1", "TLE:0", "RTE:0"], "RTE", 1),
        ("first_error", ["AC:1", "WA", "RTE"], "WA", 1),
        ("always_accept avg", ["WA:1", "AC:3"], "AC", 2),
        ("min", ["AC:50", "AC:20"], "AC", 20),
        ("max", ["AC:50", "WA:0"], "WA", 50),
        ("min max", ["AC:50", "AC:20"], "AC", 50),
        ("ignore_sample", ["WA:7", "AC:30"], "AC", 30),
        ("ignore_sample", ["WA:7"], "WA", 7),
        ("ignore_sample", ["AC", "AC", "AC"], "JE", 0),
        ("first_error accept_if_any_accepted", ["WA:0", "AC:50"], "AC", 50),
        ("accept_if_any_accepted", ["WA:0", "TLE:0"], "TLE", 0),
        ("always_accept", ["JE:0", "AC:1"], "JE", 0),
    ],
)
def test_the_default_grader(flags: str, results: list[str], verdict: str, score: float) -> None:
    assert older.together(outcomes(*results), flags.split()) == Outcome(verdict, score)


@given(st.lists(st.tuples(st.sampled_from(LETTERS), st.floats(-100, 100)), min_size=1, max_size=8))
def test_the_default_grader_in_general(results: list[tuple[str, float]]) -> None:
    made = [Outcome(*result) for result in results]
    worst, first = older.together(made, []), older.together(made, ["first_error"])
    assert (worst.verdict == "AC") == (first.verdict == "AC") == all(each.verdict == "AC" for each in made)
    assert worst.verdict in [each.verdict for each in made]
    assert first.verdict in [each.verdict for each in made]
    assert worst.score is not None
    assert math.isclose(worst.score, sum(each[1] for each in results), abs_tol=1e-9)


def data_of(root: Path, said: str, *names: str, **files: str) -> testdata.Data:
    return testdata.load(package(root, said, **case_files(*names), **files))


def grader_of(root: Path, *names: str, **files: str) -> older.Grader:
    made = package(root, "type: scoring", **case_files(*names), **files)
    return older.Grader(made, testdata.load(made))


def test_groups_of_the_older_format(tmp_path: Path) -> None:
    files = {
        "data/testdata.yaml": "on_reject: continue\ngrader_flags: ignore_sample\nrange: 0 100",
        "data/sample/testdata.yaml": "accept_score: 0\ngrader_flags: ''",
        "data/secret/testdata.yaml": "grader_flags: first_error accept_if_any_accepted",
        "data/secret/a/testdata.yaml": "on_reject: break\naccept_score: 40\ngrader_flags: min",
        "data/secret/b/testdata.yaml": "on_reject: break\naccept_score: 60\ngrader_flags: min",
    }
    grader = grader_of(tmp_path, "sample/1", "secret/a/1", "secret/a/2", "secret/b/1", "secret/b/2", **files)
    assert (grader.most, grader.stop()) == (100, False)

    def grade(*letters: str) -> tuple[Outcome, Outcome]:
        found = grader.grade({place: Outcome(letter, None) for place, letter in enumerate(letters)})
        return found[""], found["secret/b"]

    assert grade("WA", "AC", "AC", "AC", "AC") == (Outcome("AC", 100), Outcome("AC", 60))
    assert grade("AC", "AC", "AC", "AC", "TLE") == (Outcome("AC", 40), Outcome("TLE", 0))
    assert grade("AC", "WA", "JE", "AC", "AC") == (Outcome("AC", 60), Outcome("AC", 60)), "it broke at the earlier case"
    assert grade("AC", "WA", "AC", "WA", "RTE")[0] == Outcome("WA", 0)
    assert grade("AC", "JE", "AC", "AC", "AC")[0].verdict == "JE"


def test_what_breaks_lets_cases_be_skipped(tmp_path: Path) -> None:
    names = ("sample/1", "secret/a/1", "secret/b/1")
    assert grader_of(tmp_path / "a", *names).stop() is True
    files = {"data/testdata.yaml": "on_reject: continue", "data/secret/a/testdata.yaml": "on_reject: break"}
    assert grader_of(tmp_path / "b", *names, **files).stop() is False
    files |= {f"data/{name}/testdata.yaml": "on_reject: break" for name in ("sample", "secret/b")}
    assert grader_of(tmp_path / "c", *names, **files).stop() == "group"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("grading: custom", "grading: a package's own graders cannot be run here"),
        ("on_reject: explode", "on_reject: it has to be break or continue"),
        ("grader_flags: fuzzy", "grader_flags: 'fuzzy'"),
        ("range: 3", "range: it has to be two numbers"),
        ("range: a b", "range: it has to be two numbers"),
        ("accept_score: much", "accept_score: it has to be a number"),
    ],
)
def test_groups_that_are_wrong(tmp_path: Path, said: str, reason: str) -> None:
    with pytest.raises(ClientError, match=rf"secret/testdata\.yaml: {reason}"):
        grader_of(tmp_path, "secret/1", **{"data/secret/testdata.yaml": said})


def scorer_of(root: Path, *names: str, **files: str) -> newer.Scorer:
    made = package(root, SCORING, **case_files(*names), **files)
    return newer.Scorer(made, testdata.load(made))


def test_groups_of_the_newer_format(tmp_path: Path) -> None:
    names = ("sample/1", "secret/a/1", "secret/a/2", "secret/b/1", "secret/b/2", "secret/c/1")
    files = {
        "data/secret/a/test_group.yaml": "max_score: 20",
        "data/secret/b/test_group.yaml": "max_score: 50\nscore_aggregation: sum",
        "data/secret/c/test_group.yaml": "max_score: 30\nscore_aggregation: min\nrequire_pass: [sample, secret/a]",
    }
    scorer = scorer_of(tmp_path, *names, **files)
    assert scorer.most == 100
    assert scorer.points() == {0: 0, 1: 10, 2: 10, 3: 25, 4: 25, 5: 30}

    def score(*points: float) -> dict[str, float]:
        worth = scorer.points()
        return scorer.score(dict(enumerate(points)), {place: each >= worth[place] for place, each in enumerate(points)})

    assert score(0, 10, 10, 25, 25, 30) == {"secret/a": 20, "secret/b": 50, "secret/c": 30, "secret": 100}
    assert score(0, 10, 0, 25, 10, 30) == {"secret/a": 0, "secret/b": 35, "secret/c": 0, "secret": 35}
    assert score(-1, 10, 10, 0, 0, 30)["secret/c"] == 0, "the samples have to pass"


def test_secret_without_groups(tmp_path: Path) -> None:
    def total(root: str, said: str, *points: float) -> float:
        scorer = scorer_of(tmp_path / root, "secret/1", "secret/x/2", **{"data/secret/test_group.yaml": said})
        worth = scorer.points()
        passed = {place: each >= worth[place] for place, each in enumerate(points)}
        return scorer.score(dict(enumerate(points)), passed)["secret"]

    assert total("a", "", 50, 25) == 75
    assert total("b", "max_score: 10\nscore_aggregation: min", 10, 4) == 4
    assert total("c", "score_aggregation: pass-fail", 50, 50) == 100
    assert total("d", "score_aggregation: pass-fail", 50, 0) == 0
    assert total("e", "max_score: unbounded", 1000, 5) == 1005


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("score_aggregation: avg", "has to be one of"),
        ("max_score: -1", "has to be a number"),
        ("max_score: x", "number"),
    ],
)
def test_scores_that_are_wrong(tmp_path: Path, said: str, reason: str) -> None:
    with pytest.raises(ClientError, match=reason):
        scorer_of(tmp_path, "secret/1", **{"data/secret/test_group.yaml": said})


# -- all together


def judged(judge: Judge, verdicts: str, submission: Submission | None = None, limit: float = 1.0, **keys: Any) -> Any:
    """Return the judgement of a submission with these verdicts.

    ``accepted@3`` took 3 s, ``accepted:text`` has a message.
    """
    made = []
    for test, word in zip(judge.tests, verdicts.split(), strict=True):
        verdict, _, message = word.partition(":")
        verdict, _, seconds = verdict.partition("@")
        run = Phase(outcome="ok", time=0.1, cpu_time=float(seconds or 0.1))
        points = test.points if verdict == "accepted" else 0.0
        told = message.replace("~", " ") or None
        made.append(Case(name=test.name, verdict=verdict, points=points, run=run, message=told))
    response = replace(Response(status="COMPLETED"), cases=made)
    graded = together("x", judge.tests, {tuple(range(len(made))): Result("x", "x-1", response, b"")})
    if submission is None:
        return judge.judged(graded, limit)
    return judge.checked(graded, submission, limit, limit * 2)


def judge_of(root: Path, said: str, *names: str, **files: str) -> Judge:
    made = package(root, said, **case_files(*names), **files)
    return Judge(made, testdata.load(made))


def of(result: str, *rules: Any) -> Submission:
    return Submission(Path("x"), "folder/x", result, rules)


def test_what_is_used_after_a_wrong_answer_does_not_count(tmp_path: Path) -> None:
    judge = Judge(made := package(tmp_path, "", **case_files("secret/1")), testdata.load(made))

    def verdict(outcome: str, seconds: float) -> str:
        case = Case(name="secret/1", verdict="wrong_answer", run=Phase(cpu_time=seconds, outcome=outcome))
        response = Response(status="COMPLETED", cases=[case])
        return judge.judged(together("x", judge.tests, {(0,): Result("x", "", response, b"")}), 1.0).verdict

    assert (verdict("cancelled", 1.4), verdict("cancelled", 1.6)) == ("wrong_answer", "time_limit")
    assert verdict("ok", 1.4) == "time_limit"


def test_a_time_limit_with_a_margin(tmp_path: Path) -> None:
    """A submission is as expected if it gets the expected result within the limit, or within the margin."""
    judge = judge_of(tmp_path, "", "sample/1", "secret/1")
    assert judged(judge, "accepted accepted@0.9").verdict == "accepted"
    assert judged(judge, "accepted accepted@1.5").verdict == "time_limit"
    assert judged(judge, "accepted accepted@1.5", of("TLE")).as_expected
    assert judged(judge, "accepted time_limit@2", of("TLE")).as_expected
    assert judged(judge, "wrong_answer@1.5 skipped", of("WA")).as_expected
    found = judged(judge, "accepted accepted@0.5", of("TLE"))
    assert (found.as_expected, found.why) == (False, "it is AC, but should be TLE")
    assert judged(judge, "accepted memory_limit", of("RTE")).as_expected
    assert judged(judge, "accepted runtime_error", of("RTE")).as_expected
    assert not judged(judge, "accepted judge_error", of("AC")).as_expected


def test_scores_of_a_validator_are_its_own(tmp_path: Path) -> None:
    """A score may be 0 or more than 1. It stands in the message and is removed from it."""
    files = {"data/testdata.yaml": "on_reject: continue\nrange: 0 inf"}
    judge = judge_of(tmp_path, "type: scoring\nvalidation: custom score", "sample/1", "secret/1", "secret/2", **files)
    found = judged(judge, "accepted:score=0 accepted:score=12.5~well accepted:score=3")
    assert (found.verdict, found.summary.points, found.summary.accepted) == ("accepted", 15.5, 3)
    found = judged(judge, "accepted:score=1 wrong_answer:score=7 accepted:score=3")
    assert (found.verdict, found.summary.points) == ("wrong_answer", 0)
    assert judged(judge, "accepted:score=x accepted accepted").verdict == "judge_error"
    assert judged(judge, "accepted:score=nan accepted accepted").verdict == "judge_error"
    without = judged(judge, "accepted:score=1 accepted accepted:score=3")
    assert (without.verdict, without.cases[1][1].message) == ("judge_error", "the validator gave no score")
    passing = judge_of(tmp_path / "b", "validation: custom", "secret/1")
    assert judged(passing, "accepted:score=0").verdict == "accepted", "this package asks for no score"


def test_parts_of_points_by_the_newer_format(tmp_path: Path) -> None:
    files = {"data/secret/test_group.yaml": "max_score: 10"}
    judge = judge_of(tmp_path, SCORING, "sample/1", "secret/1", "secret/2", **files)
    assert [case.points for _, case in judged(judge, "accepted accepted accepted").cases] == [0, 5, 5]
    found = judged(judge, "accepted accepted:score_multiplier=0.5 accepted:score=2")
    assert (found.verdict, found.summary.points, found.summary.of_points) == ("partial", 4.5, 10)
    assert [case.verdict for _, case in found.cases] == ["accepted", "partial", "partial"]
    assert judged(judge, "accepted wrong_answer time_limit").verdict == "wrong_answer"
    assert judged(judge, "accepted accepted:score=2 accepted:score=1", of("PAC")).as_expected
    assert "has all points" in judged(judge, "accepted accepted:score=5 accepted:score=5", of("PAC")).why


def test_what_is_not_compiled_is_nothing_that_a_directory_says(tmp_path: Path) -> None:
    judge = judge_of(tmp_path, "", "secret/1")
    for status, as_expected in (("COMPILE_FAILED", False), ("REJECTED", None), ("INTERNAL_ERROR", None)):
        result = Result("x", "x-1", Response(status=status, reason="oh"), b"")
        found = judge.checked(together("x", judge.tests, {(0,): result}), of("RTE"), 1.0, 2.0)
        assert found.as_expected is as_expected
        assert (found.summary.of, found.summary.of_points) == (1, 1)


def test_tests_have_what_they_are_worth(tmp_path: Path) -> None:
    files = {"data/secret/testdata.yaml": "accept_score: 7", "data/sample/testdata.yaml": "accept_score: -1"}
    judge = judge_of(tmp_path, "type: scoring", "sample/1", "secret/1", **files)
    assert [test.points for test in judge.tests] == [0, 7]
    assert isinstance(judge.tests[0], cases.Test)
