"""Measures spoold and its peers side by side; started by contrib/development/bench, whose --help says what is measured.

A way to run programs is a row of the table: a mode of spoold is a line in SPOOLS, a peer one in ``peers.ON_STORE``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from subprocess import SubprocessError
from typing import Any

import msgspec
from docker.errors import DockerException
from rich.console import Console

from benchmarks import events, options, report
from benchmarks.engine import engine_memory
from benchmarks.peers import ON_STORE, GoJudge, Isolate, Piston
from benchmarks.programs import OWN, PROGRAMS, PYTHON, TRIVIAL, Program
from benchmarks.served import Served, settle
from benchmarks.turns import Effort, measure, say
from benchmarks.ways import WORKERS, MeasuringError, Peer, Way
from spoold.config import DockerSettings, ExecutorSettings, NixSettings, Settings
from spoold.model.errors import SpooldError

Changes = dict[str, dict[str, str | int]]
Spool = tuple[Changes, tuple[Program, ...]]
# Each spool: what of the settings makes it so, and its programs.
SPOOLS: dict[str, Spool] = {
    "spool-only": ({"sandbox": {"engine": "benchmarks.nothing"}}, (TRIVIAL,)),
    "spool-recycled": ({"sandbox": {"mode": "recycled"}}, PROGRAMS),
    # Without a reserve for bursts: what is measured is what can go on.
    "spool-single-use": ({"sandbox": {"mode": "single-use", "waiting": WORKERS}}, (*PROGRAMS, OWN)),
    "spool-nix-shell": ({"sandbox": {"waiting": WORKERS}, "nix": {"enter": "nix-shell"}}, (TRIVIAL, PYTHON)),
}
BURST = "spool-single-use-reserve"  # as it comes, with that reserve
BURST_SPOOL: Spool = ({"sandbox": {"mode": "single-use"}}, (TRIVIAL,))
MAIN = "spool-single-use"  # whose memory is measured, and whose daemons are killed
FULL_SIZES, QUICK_SIZES = [10, 1000, 100_000], [10, 1000]  # submissions that wait
FULL_BUILDS, QUICK_BUILDS = (50, 5, 3), (20, 2, 1)  # submissions, environments that have to be built for them, rounds
EVENTS = 35.0  # seconds that --quick keeps for what comes after the turns


def main() -> None:
    """Measure, print, write."""
    given = options.parsed()
    began = time.monotonic() - given.spent  # when contrib/development/bench was called
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, 110)  # of the tables
    try:
        measured = run(given, began)
    except (MeasuringError, SpooldError, OSError, SubprocessError, DockerException) as error:
        sys.exit(f"contrib/development/bench: {error}")
    report.show(measured, console)
    given.json.write_text(json.dumps(measured, indent=2) + "\n")
    about = measured["machine"]
    title = f"spoold and others: {about['cpus']} CPUs, {about['cpu']}, Docker {about['docker']} with {about['runtime']}"
    given.chart.write_text(report.chart(measured["results"], title))
    say(f"the same as JSON: {given.json}, as a chart: {given.chart} ({time.monotonic() - began:.0f} s in all)")


def run(given: argparse.Namespace, began: float) -> dict[str, Any]:
    """Return all that was measured."""
    about = report.machine(given.docker, given.work)  # before we are a load ourselves
    with ExitStack() as stack:
        spools = start(given, stack, SPOOLS)
        ways: list[Way] = [*peers(given, spools[MAIN], stack), *spools.values()]
        effort = Effort(samples=200, seconds=given.seconds, rounds=6, burst=16)
        if given.quick:
            left = options.QUICK - EVENTS - (time.monotonic() - began)
            effort = Effort(samples=60, seconds=min(given.seconds, left), rounds=2, burst=8)
        cells = measure(ways, effort)
        sizes, seconds = (QUICK_SIZES, 2.0) if given.quick else (FULL_SIZES, 15.0)
        scaling = events.scaling(spools["spool-only"], sizes, seconds)
        builds, building = (QUICK_BUILDS, [MAIN]) if given.quick else (FULL_BUILDS, [BURST, MAIN, "spool-recycled"])
        if not given.quick:
            spools |= start(given, stack, {BURST: BURST_SPOOL})
        environments = {name: events.environments(spools[name], *builds) for name in building}
        for name, served in spools.items():
            if name != MAIN:
                served.daemons.end()
        time.sleep(1.0)  # for what the others leave behind them to be freed
        memory = spools[MAIN].daemons.memory()
        engine = engine_memory(given.docker, spools[MAIN])
        recovery = events.recovery(spools[MAIN])
    return {
        "machine": about,
        "results": report.results(cells),
        "memory_mb": memory | {"total": round(sum(memory.values()), 1)},
        "engine_mb": engine,
        "recovery_s": recovery,
        "scaling": scaling,
        "environments": environments,
    }


def start(given: argparse.Namespace, stack: ExitStack, wanted: Mapping[str, Spool]) -> dict[str, Served]:
    """Return the ``wanted`` spools, served, with all environments built."""
    settings = Settings(
        executor=ExecutorSettings(slots=WORKERS),
        docker=DockerSettings(host=given.docker),
        nix=NixSettings(state=given.state, system=f"{os.uname().machine}-linux"),
        nixpkgs={"default": given.nixpkgs},
    )
    spools = {}
    for name, (changes, programs) in wanted.items():
        own = msgspec.convert(merged(msgspec.to_builtins(settings), changes), Settings)
        spools[name] = Served(name, programs, given.work, own)
        stack.callback(spools[name].close)
    for served in spools.values():
        say(f"starting {served.name}")
        served.daemons.begin()
    for served in spools.values():
        served.daemons.ready()
        for program in served.programs:
            say(f"building what {served.name}{program.suffix} needs")
            served.burst([program])
    settle(spools.values())
    return spools


def merged(base: dict[str, dict[str, object]], changes: Changes) -> dict[str, dict[str, object]]:
    """Return ``base`` with the settings of each section that ``changes`` has changed."""
    return base | {section: base[section] | values for section, values in changes.items()}


def peers(given: argparse.Namespace, served: Served, stack: ExitStack) -> list[Peer]:
    """Return the peers."""
    made: list[Peer] = [make(name, served) for name, make in ON_STORE.items()]
    if given.isolate:
        made.append(Isolate("isolate", served, given.isolate))
    if given.go_judge:
        made.append(GoJudge("go-judge", given.go_judge))
    if given.piston:
        made.append(Piston("piston", given.piston))
    for peer in made:
        stack.callback(peer.close)
    return made


if __name__ == "__main__":
    main()
