"""``spoolctl grade PACKAGE``: whole packages of both formats, through real daemons with a stand-in for the sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from spoold.cli import exits
from tests.actors.bench import Bench
from tests.grading import COUNTS, GUESSED, HALVES, grade, graded, ran, write

ADDS = "a, b = map(int, input().split())\n"
RIGHT = f"{ADDS}print(a + b)\n"
VALIDATOR = """
import sys
n = int(open(sys.argv[1]).read().split()[0])
words = sys.stdin.read().split()
feedback = sys.argv[3]
open(feedback + "judgemessage.txt", "w").write(f"it printed {words} with {sys.argv[4:]}")
if not words or not words[0].lstrip("-").isdigit(): sys.exit(43)
found = int(words[0])
if found == n: sys.exit(42)
if 0 <= found < n:
    open(feedback + "score_multiplier.txt", "w").write(str(found / n))
    sys.exit(42)
sys.exit(43)
"""


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """Return a package of the older format in which sums may be off by a tolerance."""
    files = {
        "problem.yaml": "name: Sum\nvalidator_flags: float_tolerance 0.01\n",
        "data/sample/1.in": "1 2\n",
        "data/sample/1.ans": "3\n",
        "data/secret/1.in": "20 22\n",
        "data/secret/1.ans": "42\n",
        "data/secret/2.in": "-> ../sample/1.in",
        "data/secret/2.ans": "-> ../sample/1.ans",
        "submissions/accepted/right.py": RIGHT,
        "submissions/accepted/nearly.py": f"{ADDS}print(a + b + 0.001)\n",
        "submissions/accepted/parts/main.py": "import other\nprint(other.add())\n",
        "submissions/accepted/parts/other.py": "def add(): return sum(map(int, input().split()))\n",
        "submissions/wrong_answer/off.py": f"{ADDS}print(a + b + (a > 9))\n",
        "submissions/run_time_error/crash.py": f"{ADDS}print(a + b if a < 9 else 1 / 0)\n",
        "submissions/time_limit_exceeded/slow.py": f"import time\n{ADDS}print(a + b)\ntime.sleep(a > 9 and 600)\n",
        "submissions/other/x.py": "print()",
        "submissions/loose.py": "print()",
        "submissions/README.md": "Not a program.",
    }
    return write(tmp_path / "sum", files)


def test_submissions_come_to_what_their_directories_say(bench: Bench, older: Path) -> None:
    done = grade(bench, older)
    assert "time limit: " in done.stderr
    assert (
        "left out, because the package does not mention them or they are no programs: loose.py, other/x.py\n"
        in done.stderr
    )
    assert "6 of 6 as the package says" in done.stdout
    rows = {line.split()[0]: line.split()[1:3] for line in done.stdout.splitlines()}
    assert rows["accepted/parts"] == ["accepted", "accepted"]
    assert rows["wrong_answer/off.py"] == ["wrong_answer", "wrong_answer"]
    assert rows["time_limit_exceeded/slow.py"] == ["time_limit", "time_limit_exceeded"]
    assert rows["run_time_error/crash.py"] == ["runtime_error", "run_time_error"]


def test_one_that_is_not_what_its_directory_says_fails(bench: Bench, older: Path) -> None:
    write(older, {"submissions/wrong_answer/right.py": RIGHT, "submissions/accepted/off.py": "print(1)"})
    (older / "submissions" / "time_limit_exceeded" / "slow.py").unlink()
    found = graded(bench, older, "--time", "5", code=exits.NOT_COMPLETED)
    odd = {name: each["why"] for name, each in found.items() if not each["as_expected"]}
    assert odd == {
        "wrong_answer/right.py": "it is AC, but should be WA",
        "accepted/off.py": "it is WA, but should be AC",
    }


def test_a_submission_of_ones_own(bench: Bench, older: Path, tmp_path: Path) -> None:
    """Its time limit comes from the accepted submissions, which are not run again for the next one."""
    write(tmp_path, {"mine.py": RIGHT, "yours.py": "print(3)"})
    (found,) = graded(bench, older, tmp_path / "mine.py").values()
    assert (found["verdict"], found["accepted"], "expected" in found) == ("accepted", 3, False)
    assert {each["name"]: each["hidden"] for each in found["cases"]} == {
        "sample/1": False,
        "secret/1": True,
        "secret/2": True,
    }
    write(tmp_path / "folder", {"mine.py": RIGHT, "out.py": "-> ../mine.py"})
    (older / "include" / "default").mkdir(parents=True)
    several = graded(bench, older, tmp_path / "folder", "--time", "9", code=exits.REFUSED)
    assert {name: each["verdict"] for name, each in several.items()} == {"mine.py": "accepted", "out.py": "rejected"}
    count = len(ran(bench))
    (found,) = graded(bench, older, tmp_path / "yours.py", "--time", "9", code=exits.NOT_COMPLETED).values()
    assert (found["verdict"], found["accepted"]) == ("wrong_answer", 1)
    assert [case["verdict"] for case in found["cases"]] == ["accepted", "wrong_answer", "skipped"]
    assert len(ran(bench)) == count + 1


def test_it_resumes(bench: Bench, older: Path) -> None:
    first = graded(bench, older)
    count = len(ran(bench))
    assert graded(bench, older) == first
    assert len(ran(bench)) == count
    (older / "data" / "sample" / "1.ans").write_text("4\n")
    graded(bench, older, code=exits.NOT_COMPLETED)
    assert len(ran(bench)) > count


def test_groups_and_scores_of_the_older_format(bench: Bench, tmp_path: Path) -> None:
    files = {
        "problem.yaml": "problem_format_version: 2023-07-draft\ntype: scoring\n",
        "data/testdata.yaml": "on_reject: continue\nrange: 0 100\ngrader_flags: ignore_sample\n",
        "data/sample/testdata.yaml": "grader_flags: ''\naccept_score: 0\n",
        "data/secret/testdata.yaml": "on_reject: continue\ngrader_flags: first_error accept_if_any_accepted\n",
        "submissions/accepted/right.py": RIGHT,
        "submissions/partially_accepted/small.py": f"{ADDS}print(a + b if a < 9 else 0)\n",
        "submissions/wrong_answer/none.py": "print('x')\n",
    }
    for group, numbers in (("sample", (1,)), ("secret/small", (1, 2)), ("secret/large", (20, 30))):
        files |= {f"data/{group}/{n}.in": f"{n} 1\n" for n in numbers}
        files |= {f"data/{group}/{n}.ans": f"{n + 1}\n" for n in numbers}
    for group, score in (("small", 40), ("large", 60)):
        files[f"data/secret/{group}/testdata.yaml"] = f"on_reject: break\naccept_score: {score}\ngrader_flags: min\n"
    found = graded(bench, write(tmp_path / "scored", files), "--time", "5")
    assert [(each["verdict"], each["points"], each["of_points"]) for each in found.values()] == [
        ("accepted", 100, 100),
        ("partial", 40, 100),
        ("wrong_answer", 0, 100),
    ]
    groups = found["partially_accepted/small.py"]["groups"]
    assert (groups["secret/small"]["points"], groups["secret/large"]["points"]) == (40, 0)


def test_scores_rules_and_a_validator_of_the_newer_format(bench: Bench, tmp_path: Path) -> None:
    said = "problem_format_version: 2025-09\ntype: scoring\nlimits: {time_limit: 5}\nconstants: {big: 50}\n"
    files = {
        "problem.yaml": said,
        "output_validator/validate.py": VALIDATOR,
        "data/sample/1.in": "5",
        "data/sample/1.ans": "",
        "data/secret/a/test_group.yaml": "max_score: 30\noutput_validator_args: [strict, 'x y']\n",
        "data/secret/b/test_group.yaml": "max_score: 70\nscore_aggregation: sum\n",
        "submissions/submissions.yaml": """
accepted: {score: 100}
partial/half.py: {score: [64, 66], message: "it printed ['25']"}
partial/*: {permitted: [AC]}
rejected/*: {secret/b: {required: [RTE]}}
""",
        "submissions/accepted/all.py": "print(input())",
        "submissions/partial/half.py": "n = int(input())\nprint(n if n < {{big}} else n // 2)",
        "submissions/rejected/some.py": "n = int(input())\nprint(n if n < 50 else 1 // 0)",
        "submissions/brute_force/some.py": "n = int(input())\nprint(n if n < 60 else 1 // 0)",
    }
    for group, numbers in (("a", (10, 20)), ("b", (50, 60))):
        files |= {f"data/secret/{group}/{n}.in": f"{n}" for n in numbers}
        files |= {f"data/secret/{group}/{n}.ans": "" for n in numbers}
    found = graded(bench, write(tmp_path / "newer", files))
    assert {name: (each["verdict"], each["points"], each["why"]) for name, each in found.items() if each["points"]} == {
        "accepted/all.py": ("accepted", 100, ""),
        "brute_force/some.py": ("partial", 65, "secret/b/60: runtime error, exit code 1, " + DIVISION),
        "partial/half.py": ("partial", 65, "secret/b/50: partial, it printed ['25'] with []"),
        "rejected/some.py": ("partial", 30, "secret/b/50: runtime error, exit code 1, " + DIVISION),
    }
    messages = {case["name"]: case["message"] for case in found["partial/half.py"]["response"]["cases"]}
    assert messages["secret/a/10"] == "it printed ['10'] with ['strict', 'x y']"
    groups = found["partial/half.py"]["groups"]
    assert (groups["secret/a"]["points"], groups["secret/b"]["points"], groups["secret"]["of_points"]) == (30, 35, 100)


DIVISION = "ZeroDivisionError: integer division or modulo by zero"


def test_what_cannot_be_graded_is_said(bench: Bench, tmp_path: Path) -> None:
    files = {"problem.yaml": "name: x", "data/secret/1.in": "", "data/secret/1.ans": ""}
    silent = write(tmp_path / "silent", files | {"problem.yaml": "problem_format_version: 2025-09\ntype: interactive"})
    assert "silent: it is interactive, but has no output_validator" in grade(bench, silent, code=exits.FAILED).stderr
    empty = write(tmp_path / "empty", files)
    assert (
        "neither a time limit nor accepted submissions"
        in grade(bench, empty, write(tmp_path, {"x.py": ""}) / "x.py", code=exits.FAILED).stderr
    )
    assert "there are no submissions in it" in grade(bench, empty, code=exits.FAILED).stderr
    write(empty, {"submissions/accepted/a.a68": "x"})
    said = grade(bench, empty, code=exits.FAILED).stderr
    assert "no accepted submission could be run, so there is no time limit" in said
    assert "no known language has the ending .a68" in said
    assert "cannot be set: the package says them" in grade(bench, empty, "--points", "3", code=exits.USAGE).stderr
    (empty / "problem.yaml").write_text("[")
    assert "problem.yaml: it is no YAML" in grade(bench, empty, code=exits.FAILED).stderr


def test_a_submission_in_an_unknown_language_keeps_no_other_from_being_graded(bench: Bench, older: Path) -> None:
    write(older, {"submissions/accepted/a.a68": "x"})
    (older / "submissions" / "time_limit_exceeded" / "slow.py").unlink()  # on a slow machine it runs for minutes
    found = graded(bench, older, code=exits.REFUSED)
    assert (found["accepted/a.a68"]["verdict"], found["accepted/a.a68"]["as_expected"]) == ("rejected", None)
    assert found["accepted/right.py"]["as_expected"]


# Ends what it says, and gives half of the points for half of the sum.
ENDS = """
import os, sys
numbers = open(sys.argv[1]).read()
os.write(1, numbers.encode())
os.close(1)
found, sum_ = int(input()), sum(map(int, numbers.split()))
assert sys.argv[4:] == ["half"], sys.argv
if found == sum_: sys.exit(42)
open(sys.argv[3] + "score_multiplier.txt", "w").write("0.5")
open(sys.argv[3] + "judgemessage.txt", "w").write("not all of it")
sys.exit(42 if 2 * found == sum_ else 43)
"""


def test_a_validator_that_ends_what_it_says_is_heard_to_the_end(bench: Bench, tmp_path: Path) -> None:
    files = {
        "problem.yaml": "problem_format_version: 2023-07\ntype: [interactive, scoring]\nlimits: {time_limit: 1}\n",
        "output_validator/talk.py": ENDS,
        "data/test_group.yaml": "output_validator_args: [half]\n",
        "data/secret/1.in": "20\n22\n",
        "data/secret/1.ans": "",
        "submissions/accepted/sums.py": "import sys\nprint(sum(map(int, sys.stdin)))\n",
        "submissions/partially_accepted/half.py": "import sys\nprint(sum(map(int, sys.stdin)) // 2)\n",
        "submissions/wrong_answer/first.py": "import sys\nprint(input())\n",
    }
    found = graded(bench, write(tmp_path / "ends", files))
    assert {name: (each["verdict"], each["as_expected"]) for name, each in found.items()} == {
        "accepted/sums.py": ("accepted", True),
        "partially_accepted/half.py": ("partial", True),
        "wrong_answer/first.py": ("wrong_answer", True),
    }
    (case,) = found["partially_accepted/half.py"]["response"]["cases"]
    assert (case["points"], case["message"]) == (50.0, "not all of it")


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ("validation: custom interactive\n", "output_validators/talk.py"),
        ("problem_format_version: 2023-07\ntype: interactive\nlimits: {time_limit: 1}\n", "output_validator/talk.py"),
    ],
)
def test_submissions_to_an_interactive_problem_talk_with_its_validator(
    bench: Bench, tmp_path: Path, said: str, place: str
) -> None:
    files = {
        "problem.yaml": f"name: Guess\n{said}",
        place: GUESSED,
        "submissions/accepted/halves.py": HALVES,
        "submissions/wrong_answer/counts.py": COUNTS,
        "submissions/wrong_answer/stops.py": "print(500, flush=True)",
        "submissions/run_time_error/crash.py": "print(500, flush=True)\n1 / 0",
    }
    files |= {f"data/secret/{n}{end}": text for n in (7, 617) for end, text in ((".in", f"{n}\n"), (".ans", ""))}
    found = graded(bench, write(tmp_path / "guess", files))
    assert {name: (each["verdict"], each["as_expected"]) for name, each in found.items()} == {
        "accepted/halves.py": ("accepted", True),
        "wrong_answer/counts.py": ("wrong_answer", True),
        "wrong_answer/stops.py": ("wrong_answer", True),
        "run_time_error/crash.py": ("runtime_error", True),
    }
    cases = found["wrong_answer/counts.py"]["response"]["cases"]
    assert [case["message"] for case in cases] == ["10 guesses did not find 617", None]
