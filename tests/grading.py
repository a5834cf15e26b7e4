"""Grading in tests: ``spoolctl grade`` as a program, and small problem packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spoold.cli import exits
from spoold.cli.grading.package import Package, load
from tests.actors.bench import Bench

# Guess the number in the test data by 10 questions.
GUESSED = """
import sys
secret = int(open(sys.argv[1]).read())
for guess in range(10):
    line = sys.stdin.readline()
    if not line: sys.exit(43)
    number = int(line)
    if number == secret:
        print("right", flush=True)
        sys.exit(42)
    print("higher" if number < secret else "lower", flush=True)
open(sys.argv[3] + "judgemessage.txt", "w").write(f"10 guesses did not find {secret}")
sys.exit(43)
"""
HALVES = """
low, high = 1, 1000
while True:
    print((low + high) // 2, flush=True)
    match input():
        case "right": break
        case "higher": low = (low + high) // 2 + 1
        case "lower": high = (low + high) // 2 - 1
"""
COUNTS = "for n in range(1, 1001):\n    print(n, flush=True)\n    if input() == 'right': break\n"


def environment(bench: Bench) -> dict[str, str]:
    return os.environ | {"SPOOLD_SPOOL": str(bench.root), "SPOOLD_CONFIG": os.devnull}


def line_of(*words: object) -> list[str]:
    return [sys.executable, "-m", "spoold.cli.ctl", "grade", *map(str, words)]


def grade(bench: Bench, *words: object, code: int = exits.OK) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        line_of(*words), env=environment(bench), capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def graded(bench: Bench, *words: object, code: int = exits.OK) -> dict[str, Any]:
    """Return the result of each solution, by its name."""
    done = grade(bench, *words, "--json", code=code)
    return {each["name"]: each for each in map(json.loads, done.stdout.splitlines())}


def ran(bench: Bench) -> list[str]:
    return [job.submission_id for job in bench.sandbox.jobs]


def write(root: Path, files: Mapping[str, str]) -> Path:
    """Write files by their paths. A text ``-> PATH`` is a link."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            path.symlink_to(text.removeprefix("-> "))
        else:
            path.write_text(text)
    return root


def package(root: Path, said: str = "", **files: str) -> Package:
    return load(write(root, {"problem.yaml": said, **files}))


def case_files(*names: str) -> dict[str, str]:
    return {f"data/{name}{end}": name for name in names for end in (".in", ".ans")}
