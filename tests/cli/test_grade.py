"""``spoolctl grade``: solutions against cases, through real daemons with a stand-in for the sandbox."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from spoold.cli import exits
from tests.actors.bench import Bench
from tests.grading import COUNTS, GUESSED, HALVES, environment, grade, graded, line_of, ran

ADDS = "a, b = map(int, input().split())\nprint(a + b)\n"
WRONG = "a, b = map(int, input().split())\nprint(a + b if a < 3 else -1)\n"
CHECKER = """
import sys
wanted, printed = open(sys.argv[2]).read().split(), sys.stdin.read().split()
open(sys.argv[3] + "judgemessage.txt", "w").write(f"wanted {wanted}")
if printed == wanted[::-1]: sys.exit(42)
if sorted(printed) == sorted(wanted):
    open(sys.argv[3] + "score_multiplier.txt", "w").write("0.5")
    sys.exit(42)
sys.exit(43)
"""


@pytest.fixture
def exercise(tmp_path: Path) -> Path:
    """Return a directory with cases/ and solutions/: a right one, a wrong one and one that doesn't compile."""
    for group, numbers in (("sample", (1, 2)), ("secret", (2, 3, 10))):
        (tmp_path / "cases" / group).mkdir(parents=True)
        for number in numbers:
            (tmp_path / "cases" / group / f"{number}.in").write_text(f"{number} 1\n")
            (tmp_path / "cases" / group / f"{number}.out").write_text(f"{number + 1}\n")
    solutions = tmp_path / "solutions"
    solutions.mkdir()
    (solutions / "right.py").write_text(ADDS)
    (solutions / "wrong.py").write_text(WRONG)
    (solutions / "broken").mkdir()
    (solutions / "broken" / "compile.sh").write_text("echo 'line 3: oh no' >&2; exit 1")
    (solutions / "broken" / "run.sh").write_text("true")
    (solutions / "notes.txt").write_text("x")
    return tmp_path


def test_an_exercise_with_one_command(bench: Bench, exercise: Path) -> None:
    done = grade(bench, exercise / "solutions", "--cases", exercise / "cases", code=exits.NOT_COMPLETED)
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
    assert rows["right.py"][1:4] == ["accepted", "5/5", "5/5"]
    assert rows["wrong.py"][1:4] == ["wrong_answer", "3/5", "3/5"]
    assert " ".join(rows["wrong.py"]).endswith("secret/3: wrong answer, line 1: `-1` in place of `4`")
    assert rows["broken"][1:] == ["compile_error", "0/5", "0/5", "line", "3:", "oh", "no"]
    assert "3 solutions: 1 compile error, 1 accepted, 1 wrong answer" in done.stdout
    assert "left out, because they are no programs" in done.stderr
    assert len(ran(bench)) == 3, "each is compiled once"


def test_it_goes_on_where_it_was_interrupted_and_changed_tests_are_graded_again(bench: Bench, exercise: Path) -> None:
    words = (exercise / "solutions", "--cases", exercise / "cases")
    bench.sandbox.gate.clear()
    with subprocess.Popen(line_of(*words), env=environment(bench), stderr=subprocess.PIPE, text=True) as running:
        bench.until(lambda: len(ran(bench)) == 2, lambda: None)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate()
    assert running.returncode == exits.INTERRUPTED
    assert "The same command waits for them" in said
    assert "Traceback" not in said
    bench.sandbox.gate.set()
    first = graded(bench, *words, code=exits.NOT_COMPLETED)
    assert len(ran(bench)) == len(set(ran(bench))) == 3
    assert graded(bench, *words, code=exits.NOT_COMPLETED) == first
    assert len(ran(bench)) == 3
    (exercise / "cases" / "secret" / "3.out").write_text("-1\n")
    second = graded(bench, *words, code=exits.NOT_COMPLETED)
    assert (second["right.py"]["verdict"], second["wrong.py"]["accepted"]) == ("wrong_answer", 4)
    assert len(ran(bench)) == 6
    assert first["right.py"]["response"]["build_id"] == second["right.py"]["response"]["build_id"]


def test_points_of_groups_and_hidden_cases(bench: Bench, exercise: Path) -> None:
    words = ["--cases", exercise / "cases", "--points", "sample=10", "--points", "secret=90"]
    made = graded(bench, exercise / "solutions" / "wrong.py", *words, code=exits.NOT_COMPLETED)
    (found,) = made.values()
    assert (found["points"], found["of_points"]) == (40, 100)
    assert {name: (each["points"], each["of_points"]) for name, each in found["groups"].items()} == {
        "sample": (10, 10),
        "secret": (30, 90),
    }
    assert {each["name"]: each["hidden"] for each in found["cases"]}["secret/10"]
    told = next(case for case in found["response"]["cases"] if case["name"] == "secret/3")
    assert told["difference"]["printed"] == "-1", "a grader sees everything"


def test_responses_that_can_be_handed_on(bench: Bench, exercise: Path) -> None:
    """With --hide the spool itself reveals little about hidden cases."""
    words = [exercise / "solutions" / "wrong.py", "--cases", exercise / "cases", "--hide"]
    (found,) = graded(bench, *words, code=exits.NOT_COMPLETED).values()
    told = {case["name"]: case for case in found["response"]["cases"]}
    assert told["secret/3"]["verdict"] == "wrong_answer"
    assert told["secret/3"]["difference"] is None
    assert told["secret/3"]["run"]["stdout"] == ""
    assert told["sample/1"]["run"]["stdout"] == "2\n"


def test_a_checker_with_parts_of_points(bench: Bench, exercise: Path) -> None:
    (exercise / "check.py").write_text(CHECKER)
    for name, answer in (("1", "a b"), ("2", "b a"), ("3", "c")):
        (exercise / "cases2").mkdir(exist_ok=True)
        (exercise / "cases2" / f"{name}.in").write_text(answer)
        (exercise / "cases2" / f"{name}.ans").write_text("b a")
    (exercise / "echo.py").write_text("print(input())")
    words = ["--cases", exercise / "cases2", "--checker", exercise / "check.py", "--points", "30"]
    (found,) = graded(bench, exercise / "echo.py", *words, code=exits.NOT_COMPLETED).values()
    assert [(case["verdict"], case["points"]) for case in found["cases"]] == [
        ("accepted", 10),
        ("partial", 5),
        ("wrong_answer", 0),
    ]
    assert found["why"].startswith("2: partial, wanted ['b', 'a']")
    (exercise / "check.py").write_text("raise SystemExit(1)")
    (found,) = graded(bench, exercise / "echo.py", *words, code=exits.FAILED).values()
    assert found["verdict"] == "judge_error"


def test_an_interactor_talks_with_each_solution(bench: Bench, exercise: Path) -> None:
    """Cases need no answers, and a solution reads nothing but what the interactor prints."""
    (exercise / "numbers").mkdir()
    for number in (7, 617):
        (exercise / "numbers" / f"{number}.in").write_text(f"{number}\n")
    (exercise / "talk.py").write_text(GUESSED)
    (exercise / "solutions" / "right.py").write_text(HALVES)
    (exercise / "solutions" / "wrong.py").write_text(COUNTS)
    words = ["--cases", exercise / "numbers", "--interactor", exercise / "talk.py", "--points", "30"]
    found = graded(bench, exercise / "solutions", *words, code=exits.NOT_COMPLETED)
    assert {name: (each["verdict"], each["points"]) for name, each in found.items()} == {
        "right.py": ("accepted", 30),
        "wrong.py": ("wrong_answer", 15),
        "broken": ("compile_error", 0),
    }
    (_, case) = found["wrong.py"]["response"]["cases"]
    assert case["message"] == "10 guesses did not find 617"
    assert case["interaction"].startswith(">1\n")
    done = grade(bench, exercise / "solutions", *words, "--csv", "-", code=exits.NOT_COMPLETED)
    assert "10 guesses did not find 617" in done.stdout
    assert len(ran(bench)) == 3, "the second time all of it is there"
    (exercise / "talk.py").write_text("raise SystemExit(1)")
    found = graded(bench, exercise / "solutions" / "right.py", *words, code=exits.FAILED)
    assert [each["verdict"] for each in found.values()] == ["judge_error"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--checker", "talk.py", "--interactor", "talk.py"], "--checker and --interactor cannot be used together"),
        (["--compare", "tokens", "--checker", "talk.py"], "--compare and --checker cannot be used together"),
        (["--compare", "tokens", "--interactor", "talk.py"], "--compare and --interactor cannot be used together"),
        (["--protocol", "cms", "--interactor", "talk.py"], "cms is for checkers: an interactor uses kattis or testlib"),
        (["--protocol", "kattis"], "give --checker or --interactor too"),
    ],
)
def test_only_one_option_may_say_what_is_right(
    bench: Bench, exercise: Path, options: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (exercise / "talk.py").write_text(GUESSED)
    monkeypatch.chdir(exercise)
    done = grade(bench, exercise / "solutions", "--cases", exercise / "cases", *options, code=exits.USAGE)
    assert told in " ".join(done.stderr.replace("│", " ").split())
    assert not ran(bench)


def test_a_checker_of_testlib_needs_its_header(bench: Bench, exercise: Path) -> None:
    (exercise / "check.cpp").write_text('#include "testlib.h"\nint main() {}\n')
    words = [exercise / "solutions", "--cases", exercise / "cases", "--checker", exercise / "check.cpp"]
    assert "put that file beside it" in grade(bench, *words, code=exits.FAILED).stderr


def test_directories_of_several_files_are_solutions(bench: Bench, exercise: Path) -> None:
    for name in ("alice", "bob"):
        (exercise / name).mkdir()
        (exercise / name / "main.py").write_text("import other\nother.go()\n")
        (exercise / name / "other.py").write_text(
            f"def go():\n    a, b = map(int, input().split())\n    print(a + b)\n# {name}"
        )
    made = graded(bench, exercise / "alice", exercise / "bob", "--cases", exercise / "cases")
    assert [each["verdict"] for each in made.values()] == ["accepted", "accepted"]


def test_limits_and_the_first_failure(bench: Bench, exercise: Path) -> None:
    (exercise / "slow.py").write_text("import time\ntime.sleep(600)\n")
    words = ["--cases", exercise / "cases", "--time", "0.3", "--memory", "64M", "--limit", "processes=9", "--stop"]
    (found,) = graded(bench, exercise / "slow.py", *words, code=exits.NOT_COMPLETED).values()
    assert [case["verdict"] for case in found["cases"]] == ["time_limit", *["skipped"] * 4]
    (job,) = bench.sandbox.jobs
    assert (job.cases[0].limits.cpu_time, job.cases[0].limits.memory, job.cases[0].limits.processes) == (
        0.3,
        64 << 20,
        9,
    )


def test_what_is_refused_is_a_row(bench: Bench, exercise: Path) -> None:
    (exercise / "x.unheard").write_text("x")
    made = graded(
        bench,
        exercise / "x.unheard",
        exercise / "solutions" / "right.py",
        "--cases",
        exercise / "cases",
        code=exits.REFUSED,
    )
    assert [each["verdict"] for each in made.values()] == ["rejected", "accepted"]
    assert "no known language has the ending .unheard" in made[str(exercise / "x.unheard")]["why"]


def test_links_out_of_a_folder_of_solutions_are_refused(bench: Bench, exercise: Path) -> None:
    """Otherwise a compiler's message could show one of the grader's files to the person who handed in the solution."""
    (exercise / "secret").write_text("secret = 1")
    (exercise / "solutions" / "evil.py").symlink_to("../secret")
    (exercise / "solutions" / "large.py").write_text("")
    os.truncate(exercise / "solutions" / "large.py", 1 << 40)
    made = graded(bench, exercise / "solutions", "--cases", exercise / "cases", code=exits.REFUSED)
    assert "is a link out of the directory" in made["evil.py"]["why"]
    assert "is larger than 256 MiB" in made["large.py"]["why"]
    assert made["right.py"]["verdict"] == "accepted"


def test_without_cases_it_says_what_is_missing(bench: Bench, exercise: Path) -> None:
    assert "give --cases DIRECTORY" in grade(bench, exercise / "solutions", code=exits.USAGE).stderr


# -- reports


def test_reports_for_others(bench: Bench, exercise: Path, tmp_path: Path) -> None:
    (exercise / "solutions" / "=1+1.py").write_text("print('\\x1b[31m<b>&\\x00')")
    files = {name: tmp_path / name for name in ("csv", "html", "junit", "gradescope", "ctrf")}
    words = [word for name, path in files.items() for word in (f"--{name}", path)]
    done = grade(bench, exercise / "solutions", "--cases", exercise / "cases", *words, code=exits.NOT_COMPLETED)
    _csv(files["csv"])
    assert "cells look like spreadsheet formulas" in done.stderr
    _html(files["html"])
    _junit(files["junit"])
    _gradescope(files["gradescope"])
    _ctrf(files["ctrf"])


def _csv(path: Path) -> None:
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(path.read_text()))}
    assert set(rows) == {"'=1+1.py", "broken", "right.py", "wrong.py"}
    wrong = rows["wrong.py"]
    assert (wrong["verdict"], wrong["accepted"], wrong["points secret"]) == ("wrong_answer", "3", "1.0")
    assert (wrong["sample/1"], wrong["secret/10"], rows["broken"]["sample/1"]) == ("accepted", "wrong_answer", "")


def _html(path: Path) -> None:
    page = path.read_text()
    assert all(name in page for name in ("=1+1.py", "broken", "right.py", "wrong.py", "secret/10"))
    assert page.index("wrong.py") < page.index("right.py"), "failures come first"
    assert "<b>&" not in page


def _junit(path: Path) -> None:
    suites = {suite.get("name"): suite for suite in ET.fromstring(path.read_text())}  # noqa: S314 - a file of our own
    assert set(suites) == {"=1+1.py", "broken", "right.py", "wrong.py"}
    assert (suites["wrong.py"].get("tests"), suites["wrong.py"].get("failures")) == ("5", "2")
    failure = suites["wrong.py"][3][0]
    assert (failure.tag, failure.get("type")) == ("failure", "wrong_answer")
    assert "`-1` in place of `4`" in str(failure.text)
    assert suites["broken"].get("errors") == "1"
    assert "oh no" in str(suites["broken"][0][0].text)
    assert "\\x1b[31m<b>&\\x00" in str(suites["=1+1.py"][0][0].text), "escaped, so that the file is XML"


def _gradescope(path: Path) -> None:
    found = {each.name: json.loads(each.read_bytes()) for each in path.iterdir()}
    assert set(found) == {"1-1.py.json", "broken.json", "right.py.json", "wrong.py.json"}
    assert "oh no" in found["broken.json"]["output"]
    tests = {each["name"]: each for each in found["wrong.py.json"]["tests"]}
    assert found["wrong.py.json"]["score"] == 3
    assert (tests["secret/3"]["visibility"], tests["secret/3"]["score"]) == ("hidden", 0)
    assert "output" not in tests["secret/3"]
    assert tests["sample/1"]["visibility"] == "visible"
    shown = {each["name"]: each for each in found["1-1.py.json"]["tests"]}
    assert "in place of `2`" in shown["sample/1"]["output"]
    assert "-1" not in json.dumps([each for each in tests.values() if each["visibility"] == "hidden"])


def _ctrf(path: Path) -> None:
    report = json.loads(path.read_bytes())
    assert (report["reportFormat"], report["specVersion"]) == ("CTRF", "0.0.0")
    results = report["results"]
    assert set(results) == {"tool", "summary", "tests"}
    summary = results["summary"]
    assert summary["tests"] == len(results["tests"]) == 16
    assert sum(summary[word] for word in ("passed", "failed", "skipped", "pending", "other")) == 16
    for test in results["tests"]:
        assert {"name", "status", "duration", "suite"} <= set(test)
        assert isinstance(test["duration"], int)
    (hidden,) = (
        test for test in results["tests"] if test["suite"] == ["wrong.py", "secret"] and test["name"] == "secret/3"
    )
    assert (hidden["tags"], hidden["status"], hidden["rawStatus"]) == (["hidden"], "failed", "wrong_answer")


def test_one_solution_is_one_file_for_gradescope(bench: Bench, exercise: Path, tmp_path: Path) -> None:
    target = tmp_path / "results.json"
    grade(bench, exercise / "solutions" / "right.py", "--cases", exercise / "cases", "--gradescope", target)
    assert json.loads(target.read_bytes())["score"] == 5


def test_a_report_on_standard_output_alone(bench: Bench, exercise: Path) -> None:
    done = grade(bench, exercise / "solutions" / "right.py", "--cases", exercise / "cases", "--csv", "-")
    assert len(list(csv.reader(io.StringIO(done.stdout)))) == 2
    assert "1 accepted" in done.stderr
