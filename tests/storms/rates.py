"""Rates: two nodes against one, many executors of one slot against one of many, and from no pilot to an answer.

All programs sleep, so that a rate is one of waiting and not of this machine. Other work on it makes the rates lower.
The row "executors" of contrib/development/bench has the CPU time of many executors.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.storms import run
from tests.storms.field import PLAIN, Field, Shape

SLEEP, JOBS = 0.5, 200  # seconds, and programs, for one and two nodes
LONG_SLEEP, LONG_JOBS = 4.0, 160  # the same for many executors, which take the CPU in turns
MANY = 32  # executors, and slots of one


def measure(say: Callable[[str], None]) -> dict[str, Any]:
    """Return the figures by name."""
    found: dict[str, Any] = {}
    for nodes in (1, 2):
        with field(Shape(nodes, 1)) as made:
            found[f"{nodes} nodes"] = _of_nodes(made, say)
    found["two nodes by one"] = round(found["2 nodes"]["per_s"] / found["1 nodes"]["per_s"], 2)
    with field(Shape(0, 1)) as made:
        for name, slots, number in ((f"1 x {MANY}", MANY, 1), (f"{MANY} x 1", 1, MANY)):
            with _executors(made, number, slots):
                _burst(made, made.answers(), MANY, 0)  # so that the shell is built and all are warm
                taken = _burst(made, made.answers(), LONG_JOBS, LONG_SLEEP)
            found[name] = {"per_s": round(LONG_JOBS / taken, 2)}
            say(f"{name} slots: {found[name]}")
        found["many by one"] = round(found[f"{MANY} x 1"]["per_s"] / found[f"1 x {MANY}"]["per_s"], 2)
    return found


@contextlib.contextmanager
def field(shape: Shape) -> Iterator[Field]:
    """Have a field of plain processes in the block, and nothing of it afterwards."""
    place = Path(tempfile.mkdtemp(prefix="spoold-rates."))
    made = Field(place, "plain", PLAIN, 600.0, shape)
    try:
        yield made
    finally:
        left = run.after(made)
        shutil.rmtree(place)
    assert not left, left


def _of_nodes(made: Field, say: Callable[[str], None]) -> dict[str, float]:
    """Return the seconds from no pilot to the first answer, the rate, and the seconds until there is no pilot."""
    found = {}
    for name in ("first_cold_s", "first_warm_s"):
        found[name] = round(_burst(made, made.answers(), 1, 0), 2)
        began = time.monotonic()
        _until(lambda: not made.witness.pilots() and not made.jobs())
        found["back_to_zero_s"] = round(time.monotonic() - began, 2)
    _burst(made, made.answers(), 4, SLEEP)  # so that all pilots are there
    found["per_s"] = round(JOBS / _burst(made, made.answers(), JOBS, SLEEP), 2)
    say(f"{made.shape.most} nodes: {found}")
    return found


def _burst(made: Field, first: int, count: int, seconds: float) -> float:
    """Return the seconds that so many programs take which come at once."""
    began = time.monotonic()
    for number in range(first, first + count):
        made.drop(number, seconds)
    _until(lambda: made.answers() >= first + count)
    return time.monotonic() - began


def _until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.02)


@contextlib.contextmanager
def _executors(made: Field, number: int, slots: int) -> Iterator[None]:
    """Have executors in the block, which Slurm does not start."""
    program, config = str(made.place / "pilot"), str(made.place / "pilots.toml")
    command = [program, "--config", config, "executor", "--slots", str(slots)]
    with (made.place / "executors.log").open("ab") as log:
        started = [subprocess.Popen([*command, "--name", f"e{each}"], stdout=log, stderr=log) for each in range(number)]
    noted = [made.served.spool / "tmp" / f"executor-e{each}.store" for each in range(number)]
    _until(lambda: all(path.exists() for path in noted))
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()
        for path in noted:
            path.unlink(missing_ok=True)
