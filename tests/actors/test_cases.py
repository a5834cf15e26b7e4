"""Submissions with cases, from the dropped file to the response, with a stand-in for the engine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from spoold.actors.executor import judging
from spoold.actors.executor.judging import Judging
from spoold.actors.executor.slots import Slots
from spoold.model.cases import Case
from spoold.model.ids import Entry
from spoold.model.job import BuildResult
from spoold.model.limits import Limits, RequestedLimits
from spoold.model.plan import plan_job
from spoold.model.response import SKIPPED_PHASE, Outcome, Stream, finished_phase
from spoold.model.submission import Request
from spoold.spool.builds import BuildRecord
from tests.actors.bench import Bench
from tests.actors.test_cancel import PATIENT, ask, be_patient

ECHO = 'cat; test "$1" != fail || exit 3'
COMPILE = {"name": "compile.sh", "content": "date +%N > made"}


def cases(*names: str, **more: Any) -> list[dict[str, Any]]:
    """Return cases that echo their names. Those called ``fail`` fail."""
    return [
        {"name": f"{n}", "inputs": name, "args": [name], "expected": {"stdout": name}, **more}
        for n, name in enumerate(names)
    ]


def verdicts(response: dict[str, Any]) -> list[str]:
    return [case["verdict"] for case in response["cases"]]


def test_a_response_tells_of_each_case_and_of_all(bench: Bench) -> None:
    wanted = cases("a", "fail", "b")
    wanted[0] |= {"points": 2, "group": "g"}
    wanted[2] |= {"expected": {"stdout": "c"}, "group": "g"}
    bench.drop("x", ECHO, files=[COMPILE], cases=wanted)
    bench.wait_for("x")
    response = bench.response("x")
    assert (response["status"], response["compile"]["outcome"], response["run"]["outcome"]) == (
        "COMPLETED",
        "ok",
        "skipped",
    )
    assert verdicts(response) == ["accepted", "runtime_error", "wrong_answer"]
    assert [case["points"] for case in response["cases"]] == [2, 0, 0]
    assert [case["run"]["stdout"] for case in response["cases"]] == ["a", "fail", "b"]
    assert response["cases"][2]["difference"] == {"line": 1, "column": 1, "expected": "c", "printed": "b"}
    assert response["summary"] == {
        "verdict": "runtime_error",
        "accepted": 1,
        "of": 3,
        "points": 2,
        "of_points": 4,
        "groups": {"g": {"verdict": "wrong_answer", "accepted": 1, "of": 2, "points": 2, "of_points": 3}},
    }
    bench.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("how", "found"),
    [
        (False, ["accepted", "runtime_error", "accepted", "accepted"]),
        (True, ["accepted", "runtime_error", "skipped", "skipped"]),
        ("group", ["accepted", "runtime_error", "accepted", "skipped"]),
    ],
)
def test_cases_after_a_failure_are_skipped_where_that_is_asked(bench: Bench, how: object, found: list[str]) -> None:
    wanted = cases("a", "fail", "b", "c")
    for case, group in zip(wanted, "1212", strict=True):
        case["group"] = group
    bench.drop("x", ECHO, cases=wanted, stop_on_failure=how)
    bench.wait_for("x")
    response = bench.response("x")
    assert verdicts(response) == found
    assert [case["run"]["outcome"] == "skipped" for case in response["cases"]] == [each == "skipped" for each in found]
    assert (response["status"], response["summary"]["of"]) == ("COMPLETED", 4)


def test_where_compiling_fails_all_cases_are_skipped(bench: Bench) -> None:
    bench.drop("x", ECHO, files=[COMPILE | {"content": "exit 1"}], cases=cases("a", "b"))
    bench.wait_for("x")
    response = bench.response("x")
    assert (response["status"], verdicts(response)) == ("COMPILE_FAILED", ["skipped"] * 2)
    assert response["summary"]["verdict"] == "skipped"


def test_a_request_without_cases_has_none_in_its_response(bench: Bench) -> None:
    bench.drop("x", ECHO, cases=[])
    bench.wait_for("x")
    assert not {"cases", "summary"} & bench.response("x").keys()


def test_cases_are_shown_as_they_end_without_their_output(bench: Bench, tmp_path: Path) -> None:
    go = tmp_path / "go"
    wait = f'cat; echo "much output"; test "$1" != b || until test -e {go}; do sleep 0.01; done'
    bench.drop("x", wait, cases=cases("a", "b"), limits=PATIENT)
    path = bench.root / "progress" / "x.json"

    def shown() -> list[Any]:
        try:
            return json.loads(path.read_bytes()).get("cases", [])  # type: ignore[no-any-return]
        except FileNotFoundError:
            return []

    bench.until(shown)
    (case,) = shown()
    assert (case["name"], case["verdict"], case["run"]["stdout"]) == ("0", "wrong_answer", "")
    assert case["run"]["stdout_truncated"] is True
    go.touch()
    bench.wait_for("x")
    assert "much output" in bench.response("x")["cases"][0]["run"]["stdout"]


def test_what_is_cancelled_tells_the_cases_that_ran(bench: Bench, tmp_path: Path) -> None:
    be_patient(bench)
    began = tmp_path / "began"
    bench.drop(
        "x", f'cat; test "$1" != b || {{ touch {began}; sleep 600; }}', cases=cases("a", "b", "c"), limits=PATIENT
    )
    bench.until(began.exists)
    ask(bench, "x")
    bench.until(lambda: bench.has("done", "x.response.json"), bench.intake.step)
    response = bench.response("x")
    assert (response["status"], verdicts(response)) == ("CANCELLED", ["accepted", "skipped", "skipped"])
    assert [case["run"]["outcome"] for case in response["cases"]] == ["ok", "cancelled", "skipped"]
    assert response["cases"][1]["run"]["stdout"] == "b"
    assert response["summary"]["verdict"] == "skipped"


def test_an_attempt_that_fails_between_cases_begins_anew(bench: Bench, tmp_path: Path) -> None:
    """An executor that dies after some cases leaves no trace of them, and the next attempt runs all cases."""
    ran = tmp_path / "ran"
    bench.drop("x", f'cat; echo "$1" >> {ran}', cases=cases("a", "b"))
    bench.sandbox.failures = 1
    bench.wait_for("x")
    assert verdicts(bench.response("x")) == ["accepted"] * 2
    assert ran.read_text() == "a\nb\n"


# -- checkers

CHECK = {"name": "run.sh", "content": 'test "$(cat)" = "$(cat judge/input)$4" && exit 42; exit 43'}
OTHER_SHELL = {
    "name": "cutor.nix",
    "content": "{ pkgs ? import <nixpkgs> {} }: pkgs.mkShell { packages = [ pkgs.other ]; }",
}


def test_a_checker_says_what_is_right(bench: Bench) -> None:
    """The checker has a build of its own. It doesn't see cases that failed already, or that printed too much."""
    wanted = cases("a", "fail", "b")
    wanted[2]["limits"] = {"stdout": 1}
    checker = {"files": [CHECK, OTHER_SHELL], "args": []}
    script = 'cat; test "$1" != b || echo more; test "$1" != fail || exit 3'
    bench.drop("x", script, cases=wanted, checker=checker)
    bench.wait_for("x")
    assert verdicts(bench.response("x")) == ["accepted", "runtime_error", "output_limit"]
    bench.drop("y", "cat; echo more", cases=cases("a"), checker=checker)
    bench.wait_for("y")
    assert verdicts(bench.response("y")) == ["wrong_answer"]
    assert len(bench.backend.built) == 2
    bench.assert_nothing_is_left()


def test_a_checker_leaves_points_and_words(bench: Bench) -> None:
    script = "echo 3 > feedback/score.txt; echo some words > feedback/judgemessage.txt; echo x > other; exit 42"
    bench.drop("x", ECHO, cases=cases("a", points=4), checker={"files": [{"name": "run.sh", "content": script}]})
    bench.wait_for("x")
    (case,) = bench.response("x")["cases"]
    assert (case["verdict"], case["points"], case["message"]) == ("partial", 3.0, "some words")
    assert "outputs" not in bench.response("x")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([CHECK, {"name": "compile.sh", "content": "echo words >&2; exit 4"}], "compile.sh ended with nonzero_exit"),
        ([{"name": "run.sh", "content": "exit 1"}], "checker: it ended with 1"),
        (
            [CHECK, OTHER_SHELL | {"content": "{ pkgs ? import <nixpkgs> {} }: broken"}],
            "its dependencies cannot be installed",
        ),
    ],
)
def test_no_failure_of_a_checker_is_the_programs(bench: Bench, files: list[dict[str, str]], words: str) -> None:
    bench.drop("x", ECHO, cases=cases("a", "fail"), checker={"files": files})
    bench.wait_for("x")
    response = bench.response("x")
    assert (response["status"], verdicts(response)) == ("COMPLETED", ["judge_error", "runtime_error"])
    assert words in response["cases"][0]["message"]
    assert response["cases"][0]["run"]["outcome"] == "ok"


def test_a_checkers_failure_is_told_however_long_the_line_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the build would be forgotten each time before a slot is free, and be made again without end."""
    run = Slots._run

    def come_late(slots: Slots, *more: Any) -> None:
        failed = [each for each in bench.builds.finished() if (it := bench.builds.result(each)) and not it.result.shell]
        bench.builds.forget(failed)
        run(slots, *more)

    monkeypatch.setattr(Slots, "_run", come_late)
    broken = OTHER_SHELL | {"content": "{ pkgs ? import <nixpkgs> {} }: broken"}
    bench.drop("x", ECHO, cases=cases("a", "fail"), checker={"files": [CHECK, broken]})
    bench.wait_for("x")
    response = bench.response("x")
    assert (verdicts(response), response["attempt"]) == (["judge_error", "runtime_error"], 1)
    assert "its dependencies cannot be installed" in response["cases"][0]["message"]


def test_who_waits_for_a_checker_waits_for_both_builds(bench: Bench) -> None:
    """Both builds are filed at once. Where one is lost, health lets an executor look at the submission again."""
    bench.backend.gate.clear()
    bench.drop("x", ECHO, cases=cases("a"), checker={"files": [CHECK, OTHER_SHELL]})
    bench.until(lambda: len(bench.names("builds/new") | bench.names("builds/building")) == 2)
    bench.backend.gate.set()
    bench.wait_for("x")
    assert verdicts(bench.response("x")) == ["accepted"]
    bench.assert_nothing_is_left()


def test_a_client_waits_for_both_builds_by_one_limit(bench: Bench) -> None:
    """The time goes on after the first build has ended, and when another executor takes over."""
    bench.backend.gate.clear()
    limits = {"dependencies": {"time": 10_000}}
    bench.drop("x", ECHO, cases=cases("a"), checker={"files": [CHECK, OTHER_SHELL]}, limits=limits)
    bench.until(lambda: len(bench.names("builds/new") | bench.names("builds/building")) == 2)
    bench.executor.stop()
    (waiting,) = (bench.root / "building").iterdir()
    os.utime(waiting, (0, waiting.stat().st_mtime - 20_000))
    bench.executor = bench.new_executor()
    bench.wait_for("x")
    response = bench.response("x")
    assert response["status"] == "DEPENDENCIES_FAILED"
    assert "limits.dependencies.time" in response["dependencies"]["stderr"]


def test_a_pin_that_goes_while_a_slot_begins_costs_no_attempt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = Slots._checker

    def lose_the_pins(slots: Slots, *more: Any) -> BuildRecord | None:
        assert slots._runtime
        slots.use_runtime(msgspec.structs.replace(slots._runtime, nixpkgs={}))
        return begin(slots, *more)

    monkeypatch.setattr(Slots, "_checker", lose_the_pins)
    bench.drop("x", ECHO, cases=cases("a"), checker={"files": [CHECK]})
    bench.wait_for("x")
    response = bench.response("x")
    assert (verdicts(response), response["attempt"]) == (["accepted"], 1)


# -- how much output of cases a response holds


def judged(*sizes: int, hidden: bool = False) -> list[tuple[int, bool]]:
    many = [Case(name=str(n), hidden=hidden) for n in range(len(sizes))]
    told: list[int] = []
    judge = Judging(Request(cases=many), lambda results: told.append(len(results)))
    for number, size in enumerate(sizes):
        assert judge.wants(number)
        stdout = Stream(b"x" * size, size)
        run = finished_phase(stdout=stdout, stderr=Stream(b"", 0), time=1, outcome=Outcome.OK, exit_code=0)
        judge.ended(number, run, [])
    assert told == list(range(1, len(sizes) + 1))
    return [(len(result.run.stdout), result.run.stdout_truncated is True) for result in judge.results]


def test_all_outputs_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "MOST_OUTPUT", 10_000)
    assert judged(6000, 5000, 3000, 0, 5000, 800) == [
        (6000, False),
        (1024, True),
        (1024 if 6000 + 1024 + 3000 > 10_000 else 3000, 6000 + 1024 + 3000 > 10_000),
        (0, False),
        (1024, True),
        (800, False),
    ]
    assert judged(20_000, hidden=True) == [(0, False)]


def test_cases_are_begun_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise one submission with the longest possible cases could hold a slot for a week."""
    now = 100.0
    monkeypatch.setattr(judging, "time", SimpleNamespace(monotonic=lambda: now))
    judge = Judging(Request(cases=[Case(name=name) for name in "abcd"]), lambda _: None, seconds=10.0)
    stdout = Stream(b"", 0)
    for number in range(2):
        assert judge.wants(number)
        judge.ended(number, finished_phase(stdout=stdout, stderr=stdout, time=1, outcome=Outcome.OK, exit_code=0), [])
        now += 10.0
    assert not any(judge.wants(number) for number in (2, 3))
    assert [result.verdict for result in judge.all()] == ["accepted", "accepted", "skipped", "skipped"]
    assert judge.notes == ["cases: all from 'c' on were skipped, since cases are begun for 10 seconds at most"]


def test_a_slot_is_asked_for_so_long_at_most() -> None:
    limits = Limits(cases_time=50.0)
    build = BuildResult(phase=SKIPPED_PHASE, shell="/nix/store/" + "0" * 32 + "-x")
    for many, seconds in ((2, 40.0), (1000, 70.0)):
        request = Request(cases=[Case(name=f"{n}", limits=RequestedLimits(time=20.0)) for n in range(many)])
        job, _ = plan_job(Entry("x", 0, 1), request, limits, build=build, nixpkgs="", owner=0)
        assert (job.cases_time, job.longest) == (50.0, seconds)


def test_the_response_says_why_cases_are_skipped_for_want_of_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judging, "_is_late", lambda judge: judge.notes.append("late") or True)
    bench.drop("x", ECHO, cases=cases("a"))
    bench.wait_for("x")
    response = bench.response("x")
    assert (response["status"], verdicts(response), response["notes"]) == ("COMPLETED", ["skipped"], ["late"])


def test_what_is_cut_was_judged_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "MOST_OUTPUT", 100)
    right = msgspec.convert({"name": "a", "expected": {"stdout": "x" * 5000}}, Case)
    judge = Judging(Request(cases=[right]), lambda _: None)
    stdout = Stream(b"x" * 5000, 5000)
    judge.ended(0, finished_phase(stdout=stdout, stderr=Stream(b"", 0), time=1, outcome=Outcome.OK, exit_code=0), [])
    assert (judge.results[0].verdict, len(judge.results[0].run.stdout)) == ("accepted", 1024)
