"""How a spool's time grows with slots, responses, requests, environments and kept answers; see bench --growth.

Each row has three sizes, which take turns. In each turn a burst of jobs is answered, and for each size the median of
the seconds counts. A row's slope is that of the line through the logarithms of sizes and seconds: 1 is growth in
proportion, 0 is none. Beside it stands the memory of the daemons: at rest after the last burst, and the most that they
had meanwhile.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.programs import TRIVIAL, Program
from benchmarks.served import Served
from benchmarks.spools import NOTHING, RECYCLED, Spool, start
from benchmarks.ways import MeasuringError, say
from spoold.model.limits import MIB

SLOTS = (2, 4, 8)
SIZES = (1 * MIB, 4 * MIB, 16 * MIB)
REST_OF_REQUEST = 4096  # bytes of a large request beside its large file, at most
PATHS = (10, 100, 1000)
ANSWERS = (10_000, 100_000, 1_000_000)
ROUNDS = 5  # the median of them counts
STARTS = 3  # of all daemons; the median of them counts
JOBS_PER_SLOT, LARGE_JOBS, KNOWN_JOBS, KEPT_JOBS = 12, 4, 12, 200  # jobs of a burst
LINKS = 60_000  # names of one file; ext4 allows 65,000
REST = 3.0  # seconds after which memory counts as memory at rest
STEEP = 1.1  # a slope above it grows faster than in proportion
KEEP_ALL: dict[str, dict[str, str | int]] = {
    "share": {"bytes": 1 << 50, "entries": 1 << 40},  # all answers are one owner's
    "retention": {"max_count": 0, "max_size": 0},
}
SPOOLS = {f"growth-slots-{slots}": Spool(RECYCLED | {"executor": {"slots": slots}}, (TRIVIAL,)) for slots in SLOTS} | {
    "growth-answers": Spool(NOTHING | KEEP_ALL, (TRIVIAL,))
}


@dataclass(frozen=True, eq=False)
class Large(Program):
    """A program that prints ``size`` bytes, or whose request has that many."""

    size: int = 0
    printing: bool = True

    @property
    def request(self) -> bytes:
        """Return the submission."""
        request: dict[str, Any] = json.loads(super().request)
        if self.printing:
            request["limits"] = {"run": {"stdout": self.size}}
        else:
            request["files"].append({"name": "data", "content": "x" * (self.size - REST_OF_REQUEST)})
        return json.dumps(request).encode()


@dataclass
class Row:
    """What was measured for one size: seconds of each burst, the daemons' MB at rest, and the most MB they had."""

    size: int
    served: Served
    seconds: list[float] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)

    def measure(self, act: Callable[[], float], *, last: bool) -> None:
        """Note the seconds that ``act`` returns and the most memory, after the ``last`` time also memory at rest."""
        pids = self.served.daemons.pids()
        for pid in pids.values():
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): the peak begins anew
        self.seconds.append(act())
        for role, pid in self.served.daemons.pids().items():  # ``act`` may have restarted them
            self.peak[role] = max(self.peak.get(role, 0.0), _peak(pid))
        self.served.rest()
        if last:
            time.sleep(REST)  # nothing tells when memory has come to rest
            self.memory = self.served.daemons.memory()


def measure(given: argparse.Namespace, stack: ExitStack) -> dict[str, dict[str, Any]]:
    """Return the rows by name."""
    spools = start(given, stack, SPOOLS, {})
    slots = [spools[f"growth-slots-{each}"] for each in SLOTS]
    return {
        "slots": _slots(slots),
        "responses, bytes": _large(slots[0], printing=True),
        "requests, bytes": _large(slots[0], printing=False),
        **_environments(slots[0]),
        **_answers(spools["growth-answers"]),
    }


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the slope of the line of least squares through the logarithms."""
    return round(statistics.linear_regression([*map(math.log, sizes)], [*map(math.log, seconds)]).slope, 2)


def _slots(spools: list[Served]) -> dict[str, Any]:
    """Return the seconds of bursts with as many jobs for each slot: more slots than CPUs may cost nothing."""
    rows = [Row(size, served) for size, served in zip(SLOTS, spools, strict=True)]
    return _in_turns("slots", rows, lambda row: row.served.burst([TRIVIAL] * (JOBS_PER_SLOT * row.size)))


def _large(served: Served, *, printing: bool) -> dict[str, Any]:
    programs = {}
    for size in SIZES:
        script = f"head -c {size} /dev/zero | tr '\\0' x\n" if printing else "echo hi\n"
        output = "x" * size if printing else "hi\n"
        programs[size] = Large("", output, {"run.sh": script}, size=size, printing=printing)
    what = "a response" if printing else "a request"
    return _in_turns(
        what, [Row(size, served) for size in SIZES], lambda row: served.burst([programs[row.size]] * LARGE_JOBS)
    )


def _environments(served: Served) -> dict[str, dict[str, Any]]:
    """Return the seconds until a new environment's first answer, and those of jobs in a known one, by paths."""
    made: list[tuple[Row, Row, Program]] = []
    for paths in PATHS:
        say(f"building an environment of {paths} paths more than the shell's")
        program = Program("", TRIVIAL.output, TRIVIAL.files | {"cutor.nix": _many_paths(paths)})
        new = Row(paths, served)
        new.measure(lambda program=program: served.burst([program]), last=True)  # type: ignore[misc] # mypy cannot infer it
        size = _closure(served, f"o{paths}-")
        made.append((Row(size, served, new.seconds, new.memory, new.peak), Row(size, served), program))
    programs = {id(known): program for _, known, program in made}
    return {
        "new environments, paths": _row([new for new, _, _ in made]),
        "known environments, paths": _in_turns(
            "a known environment",
            [known for _, known, _ in made],
            lambda row: served.burst([programs[id(row)]] * KNOWN_JOBS),
        ),
    }


def _many_paths(count: int) -> str:
    """Return a cutor.nix whose closure has ``count`` more paths, which one short build makes.

    The builder's last command is not mkdir, which closes its standard output and error before it ends: Nix may kill a
    builder that has closed them.
    """
    return f"""{{ pkgs ? import <nixpkgs> {{}} }}:
let
  names = builtins.genList (n: "o{count}-${{toString n}}") {count};
  many = derivation {{
    name = "many-{time.time_ns()}"; system = builtins.currentSystem; builder = "${{pkgs.bash}}/bin/bash";
    outputs = names; args = [ "-c" "${{pkgs.coreutils}}/bin/mkdir ${{toString (map placeholder names)}}; :" ];
  }};
in pkgs.mkShell {{ MANY = map (name: many.${{name}}) names; }}
"""


def _closure(served: Served, mark: str) -> int:
    """Return the number of paths in the closure that has paths with ``mark`` in their names."""
    for path in (served.spool / "builds" / "done").glob("*.response.json"):
        closure = json.loads(path.read_bytes())["result"]["closure"]
        if any(mark in each for each in closure):
            return len(closure)
    raise MeasuringError(f"no build has paths that are called {mark}{served.daemons.said()}")


def _answers(served: Served) -> dict[str, dict[str, Any]]:
    """Return the seconds of jobs, and those from the daemons' start to the first answer, by the number of kept answers.

    The sizes take no turns here, since the number of answers only grows.
    """
    jobs, starts = [], []
    kept = Kept(served)
    for size in ANSWERS:
        kept.fill(size)
        jobs.append(Row(size, served))
        starts.append(Row(size, served))
        for number in range(ROUNDS):
            jobs[-1].measure(lambda: served.burst([TRIVIAL] * KEPT_JOBS), last=number == ROUNDS - 1)
        for number in range(STARTS):
            starts[-1].measure(lambda: _cold_start(served), last=number == STARTS - 1)
    return {"kept answers, jobs": _row(jobs), "kept answers, start": _row(starts)}


def _cold_start(served: Served) -> float:
    served.daemons.end()
    id_ = served.drop(TRIVIAL)
    began = time.monotonic()
    served.daemons.begin()
    served.daemons.ready()
    return served.seen(id_) - began


class Kept:
    """Answers in ``done/`` that are names of a few files, which are copies of an answer that was really given."""

    def __init__(self, served: Served) -> None:
        self._done = served.spool / "done"
        self._given = served.drop(TRIVIAL)
        served.seen(self._given)
        served.check(TRIVIAL, self._given)
        self._count = 0

    def fill(self, count: int) -> None:
        """Add answers until there are ``count``."""
        say(f"filling done/ with {count} responses")
        for ending in (".response.json", ".json"):  # responses first: an entry without one looks unanswered
            source = self._done / f"{self._given}{ending}"
            first = source
            for number in range(self._count, count):
                name = self._done / f"kept-{number}{ending}"
                if number % LINKS == 0 or first == source:
                    shutil.copy2(source, name)  # with its access control list
                    first = name
                else:
                    os.link(first, name)
        self._count = count


def _in_turns(what: str, rows: list[Row], act: Callable[[Row], float]) -> dict[str, Any]:
    for row in rows:
        act(row)  # to warm up; it is not counted
    for number in range(ROUNDS):
        say(f"{what}: round {number + 1} of {ROUNDS}")
        for row in rows:
            row.measure(lambda row=row: act(row), last=number == ROUNDS - 1)  # type: ignore[misc] # as above
    return _row(rows)


def _row(rows: list[Row]) -> dict[str, Any]:
    sizes, seconds = [row.size for row in rows], [statistics.median(row.seconds) for row in rows]
    return {
        "sizes": sizes,
        "seconds": [round(each, 3) for each in seconds],
        "slope": slope(sizes, seconds),
        "memory_mb": [row.memory for row in rows],
        "peak_mb": [row.peak for row in rows],
    }


def _peak(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024, 1)


def show(growth: dict[str, dict[str, Any]], console: Console) -> None:
    """Print the rows."""
    table = Table("growth, by", "sizes", "seconds", "slope", "MB of the daemons", "most MB", box=None, pad_edge=False)
    for name, row in growth.items():
        sizes, seconds = (" ".join(f"{each:g}" for each in row[key]) for key in ("sizes", "seconds"))
        memory, peak = (" ".join(f"{sum(each.values()):.0f}" for each in row[key]) for key in ("memory_mb", "peak_mb"))
        table.add_row(name, sizes, seconds, f"{row['slope']}{'!' if row['slope'] > STEEP else ''}", memory, peak)
    console.print(table)
    console.print(f"slope: that of the logarithms. 1 is growth in proportion. !: above {STEEP}")
    console.print()
