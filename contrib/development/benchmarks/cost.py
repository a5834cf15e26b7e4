"""Where the CPU time of a job goes. contrib/development/profile starts this, and its --help says what is measured."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from subprocess import SubprocessError

from docker.errors import DockerException
from rich.console import Console
from rich.table import Table

from benchmarks.engine import listener, processes, processes_of
from benchmarks.programs import COMPILE, PROGRAMS, PYTHON, TRIVIAL
from benchmarks.served import Served, settle
from benchmarks.ways import WORKERS, MeasuringError, say
from spoold.config import DockerSettings, ExecutorSettings, NixSettings, SandboxSettings, Settings
from spoold.model.errors import SpooldError

TICKS = os.sysconf("SC_CLK_TCK")
KERNEL = 2  # kthreadd, the parent of all threads of the kernel
BY_NAME = {program.title: program for program in (TRIVIAL, PYTHON, COMPILE)}
# Rows, in the order of the table. "Rest" is the machine's time without these: other work, and processes that are gone.
PARTS = ("containers user", "containers system", "executor", "intake", "builder", "health", "engine", "kernel threads")
Costs = dict[str, float]  # seconds of CPU so far, by part


def main() -> None:
    """Measure, print, write."""
    given = parsed()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        measured = run(given)
    except (MeasuringError, SpooldError, OSError, SubprocessError, DockerException) as error:
        sys.exit(f"contrib/development/profile: {error}")
    if given.json:
        given.json.write_text(json.dumps(measured, indent=2) + "\n")
    show(measured, Console(highlight=False, markup=False, soft_wrap=True))


def parsed() -> argparse.Namespace:
    """Return the options; exit with 2 where they are wrong."""
    parser = argparse.ArgumentParser(prog="contrib/development/profile", add_help=False, allow_abbrev=False)
    parser.add_argument("--tree", type=_tree, action="append", default=[])
    parser.add_argument("--mode", choices=("recycled", "single-use"), default="recycled")
    parser.add_argument("--program", choices=tuple(BY_NAME), default=TRIVIAL.title)
    parser.add_argument("--engine")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    # contrib/development/profile adds the following.
    parser.add_argument("--root", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--docker")
    parser.add_argument("--nixpkgs")
    parser.add_argument("--state")
    given = parser.parse_args()
    if min(given.jobs, given.rounds) < 1:
        parser.error("--jobs and --rounds must be 1 or more")
    given.trees = dict(given.tree) or {"here": given.root}
    return given


def _tree(word: str) -> tuple[str, Path]:
    name, given, path = word.partition("=")
    tree = Path(path).absolute()
    if not given or not name.isalnum() or not (tree / "spoold").is_dir():
        raise argparse.ArgumentTypeError(f"{word}: give NAME=DIRECTORY, a name of letters and a copy of spoold")
    return name, tree


def run(given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the medians, by tree: milliseconds of CPU per job by part, and jobs per second."""
    program = BY_NAME[given.program]
    with ExitStack() as stack:
        spools = {name: _start(name, tree, given, stack) for name, tree in given.trees.items()}
        settle(spools.values())
        found: dict[str, list[Costs]] = {name: [] for name in spools}
        meter = Meter(given.docker)
        for number in range(given.rounds):
            say(f"round {number + 1} of {given.rounds}")
            for name in random.sample(list(spools), len(spools)):
                served = spools[name]
                before = meter.read(served)
                taken = served.burst([program] * given.jobs)
                served.rest()
                after = meter.read(served)
                costs = {part: (after[part] - before[part]) * 1000 / given.jobs for part in after}
                found[name].append(costs | {"jobs/s": given.jobs / taken})
    return {
        name: {part: round(statistics.median(costs[part] for costs in rounds), 3) for part in rounds[0]}
        for name, rounds in found.items()
    }


def _start(name: str, tree: Path, given: argparse.Namespace, stack: ExitStack) -> Served:
    engine = {} if given.engine is None else {"engine": given.engine}
    settings = Settings(
        executor=ExecutorSettings(slots=WORKERS),
        docker=DockerSettings(host=given.docker),
        sandbox=SandboxSettings(mode=given.mode, waiting=WORKERS, **engine),
        nix=NixSettings(state=given.state, system=f"{os.uname().machine}-linux"),
        nixpkgs={"default": given.nixpkgs},
    )
    served = Served(name, PROGRAMS, given.work, settings, tree)
    stack.callback(served.close)
    say(f"starting {name}: {tree}")
    served.daemons.begin()
    served.daemons.ready()
    for program in dict.fromkeys((TRIVIAL, BY_NAME[given.program])):
        served.burst([program] * 4 * WORKERS)
    return served


class Meter:
    """Reads the CPU time that all parts have used so far, the engine at ``docker`` included."""

    def __init__(self, docker: str) -> None:
        self._engine = listener(docker)
        self._group: Path | None = None

    def read(self, served: Served) -> Costs:
        """Return the seconds of CPU of each part, of all parts together, and of the rest of the machine."""
        costs = {role: _of_process(pid) for role, pid in served.daemons.pids().items()}
        costs["engine"] = sum(_of_process(pid) for pid in processes_of(self._engine, served))
        costs["kernel threads"] = sum(_of_process(pid) for pid, parent, _ in processes() if parent == KERNEL)
        costs["containers user"], costs["containers system"] = self._containers(served)
        costs["all parts"] = sum(costs[part] for part in PARTS)
        busy = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        costs["rest of the machine"] = (sum(busy[:3]) + sum(busy[5:8])) / TICKS - costs["all parts"]
        return costs

    def _containers(self, served: Served) -> tuple[float, float]:
        """Return the user and system seconds of all containers so far, also of removed ones: one group is above all."""
        if self._group is None:
            if not served.container_ids():  # another engine than Docker
                return 0.0, 0.0
            self._group = _group_of(served.a_container()).parent
        group = self._group
        if (group / "cpu.stat").exists() and "usage_usec" in (group / "cpu.stat").read_text():  # version 2
            used = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
            return int(used["user_usec"]) / 1e6, int(used["system_usec"]) / 1e6
        user, system = (int((group / f"cpuacct.usage_{kind}").read_text()) / 1e9 for kind in ("user", "sys"))
        return user, system


def _group_of(pid: int) -> Path:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpuacct" in controllers.split(","):
            return Path(f"/sys/fs/cgroup/cpuacct{path}")
    return Path(f"/sys/fs/cgroup{path}")


def _of_process(pid: int) -> float:
    """Return the seconds of CPU of a process and of its children that have ended; 0 where it is gone."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(map(int, words[11:15])) / TICKS


def show(measured: dict[str, dict[str, float]], console: Console) -> None:
    """Print a column for each tree."""
    table = Table("ms of CPU per job, medians", box=None)
    for name in measured:
        table.add_column(name, justify="right")
    for part in (*PARTS, "all parts", "rest of the machine", "jobs/s"):
        table.add_row(part, *(f"{costs[part]:.2f}" for costs in measured.values()))
    console.print(table)


if __name__ == "__main__":
    main()
