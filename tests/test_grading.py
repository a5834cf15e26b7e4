"""``spoolctl batch`` and ``spoolctl grade`` through real daemons, real builds and real sandboxes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spoold.cli import exits
from spoold.config import Settings
from tests.grading import write
from tests.served import Served, in_mode

pytestmark = [pytest.mark.docker, pytest.mark.nix, pytest.mark.timeout(900)]
PATIENT = ("--limit", "time=60")  # by the clock, because the machine may stand still while a program runs
HEADER = "enum { RIGHT = 42, WRONG = 43 };\n"
VALIDATOR = r"""
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include "verdicts.h"
int main(int, char **argv) {
    std::ifstream answer(argv[2]);
    std::string message = std::string(argv[3]) + "judgemessage.txt";
    long long wanted, printed;
    answer >> wanted;
    if (std::cin >> printed && printed == wanted) return RIGHT;
    std::ofstream(message) << "wanted " << wanted << " with " << (argv[4] ? argv[4] : "nothing") << "\n";
    return WRONG;
}
"""
ADD = '#include <cstdio>\nint main() { long long a, b; scanf("%lld %lld", &a, &b); {0} printf("%lld\\n", {1}); }\n'


def cpp(before: str = "", result: str = "a + b") -> str:
    return ADD.replace("{0}", before).replace("{1}", result)


@pytest.fixture(scope="module")
def served(nix_settings: Settings, docker_host: str, runtime: object) -> Iterator[Served]:
    with in_mode("recycled", nix_settings, docker_host, "spoold-grading.") as made:
        yield made


def ctl(served: Served, *words: object, code: int = exits.OK) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "spoold.cli.ctl", "--config", str(served.config), *map(str, words)]
    done = subprocess.run(line, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def graded(served: Served, *words: object, code: int = exits.OK) -> dict[str, Any]:
    done = ctl(served, "grade", *words, "--json", code=code)
    return {each["name"]: each for each in map(json.loads, done.stdout.splitlines())}


def test_a_package_with_a_validator_and_limits(served: Served, tmp_path: Path) -> None:
    """The submissions of a package get the verdicts that their directories name, under limits that are measured."""
    much = "static volatile char much[300 << 20]; for (long n = 0; n < 300 << 20; n += 4096) much[n] = 1;"
    package = write(
        tmp_path / "sum",
        {
            "problem.yaml": "validation: custom\nvalidator_flags: care\nlimits: {memory: 128}\n",
            "output_validators/check/check.cc": VALIDATOR,
            "output_validators/check/verdicts.h": HEADER,
            "data/sample/1.in": "1 2\n",
            "data/sample/1.ans": "3\n",
            "data/secret/1.in": "4000000000 1\n",
            "data/secret/1.ans": "4000000001\n",
            "data/secret/2.in": "9 9\n",
            "data/secret/2.ans": "18\n",
            "include/cpp/unused.h": HEADER,
            "submissions/accepted/add.cpp": cpp(),
            "submissions/accepted/add.py": "print(sum(map(int, input().split())))\n",
            "submissions/wrong_answer/narrow.cpp": cpp(result="(long long)(int)(a + b)"),
            "submissions/run_time_error/exits.cpp": cpp("if (a == 9) return 3;"),
            "submissions/run_time_error/much.cpp": cpp(much),
            "submissions/run_time_error/deep.cpp": cpp("volatile long *nowhere = 0; if (a > 9) *nowhere = 1;"),
            "submissions/time_limit_exceeded/loop.cpp": cpp('while (a == 9) asm volatile ("");'),
        },
    )
    found = graded(served, package, *PATIENT)
    assert all(each["as_expected"] for each in found.values()), {name: each["why"] for name, each in found.items()}
    verdicts = {name: each["verdict"] for name, each in found.items()}
    assert verdicts["run_time_error/much.cpp"] == "memory_limit"
    assert verdicts["time_limit_exceeded/loop.cpp"] == "time_limit"
    assert found["wrong_answer/narrow.cpp"]["why"].endswith("wanted 4000000001 with care")


def test_an_exercise_and_its_cache(served: Served, tmp_path: Path) -> None:
    """Results are kept. With other cases every solution runs again, and none is built again."""
    root = write(
        tmp_path,
        {
            "cases/sample/1.in": "1 2\n",
            "cases/sample/1.out": "3\n",
            "cases/secret/1.in": "5 5\n",
            "cases/secret/1.out": "10\n",
            "solutions/right.cpp": cpp(),
            "solutions/wrong.py": "print(3)\n",
            "solutions/broken.c": "int main( {",
        },
    )
    words = (root / "solutions", "--cases", root / "cases", "--time", "20", "--points", "100")
    found = graded(served, *words, code=exits.NOT_COMPLETED)
    assert {name: (each["verdict"], each["points"]) for name, each in found.items()} == {
        "broken.c": ("compile_error", 0),
        "right.cpp": ("accepted", 100),
        "wrong.py": ("wrong_answer", 50),
    }
    assert "error" in found["broken.c"]["why"]
    assert graded(served, *words, code=exits.NOT_COMPLETED) == found
    builds = served.builds()
    (root / "cases" / "secret" / "1.out").write_text("3\n")
    again = graded(served, *words, code=exits.NOT_COMPLETED)
    assert {name: each["points"] for name, each in again.items()} == {"broken.c": 0, "right.cpp": 50, "wrong.py": 100}
    assert served.builds() == builds


def test_a_sweep(served: Served, tmp_path: Path) -> None:
    lines = [{"name": f"n{n}", "path": "square.py", "args": [str(n)]} for n in range(20)]
    write(
        tmp_path,
        {
            "square.py": "import sys\nprint(int(sys.argv[1]) ** 2)\n",
            "list.jsonl": "".join(f"{json.dumps(each)}\n" for each in lines),
        },
    )
    table = tmp_path / "r.csv"
    ctl(served, "batch", tmp_path / "list.jsonl", "--table", table)
    with table.open() as file:
        assert [(row["name"], row["stdout"]) for row in csv.DictReader(file)] == [
            (f"n{n}", f"{n * n}") for n in range(20)
        ]
    assert "20 had been run before" in ctl(served, "batch", tmp_path / "list.jsonl").stdout
