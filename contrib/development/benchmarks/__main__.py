"""Measures spoold and its peers side by side, for contrib/development/bench, whose --help says what is measured.

Each way to run programs is a row of the table. A mode of spoold is a line in ``spools.SPOOLS``, and a peer is a line in
``peers.ON_STORE``.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

from docker.errors import DockerException
from rich.console import Console

from benchmarks import events, growth, options, places, report, spools
from benchmarks.boxes import Isolate, Nsjail
from benchmarks.deadline import Deadline
from benchmarks.engine import engine_memory
from benchmarks.executors import executors
from benchmarks.footprint import UnknownError, listener_of, memory_of
from benchmarks.peers import ON_STORE
from benchmarks.served import Served
from benchmarks.servers import GoJudge, Piston
from benchmarks.turns import Effort, measure
from benchmarks.ways import MeasuringError, Peer, Way, say
from spoold.model.errors import SpooldError

FULL_SIZES, QUICK_SIZES = [10, 1000, 100_000, 1_000_000], [10, 1000]  # submissions that wait
SHARED = 480  # jobs that many executors answer together
FULL_BUILDS, QUICK_BUILDS = (50, 5, 3), (20, 2, 1)  # submissions, environments that have to be built for them, rounds
# Usual seconds of the steps with --quick, where nothing else runs. They tell for which steps there is time.
START, MEMORY, RECOVERY, SCALING, ENVIRONMENTS = 20.0, 3.0, 5.0, 8.0, 14.0
EVENTS = (MEMORY, RECOVERY, SCALING, ENVIRONMENTS)  # time is kept for them in this order
BUSY = 1.4  # a pace: on a slower machine each row gets one turn, since of two turns slow rows would get none
TURNS_PART = 0.5  # the least part of the time left after the start that the turns get


def main() -> None:
    """Measure, print, write."""
    given = options.parsed()
    began = time.monotonic() - given.spent  # when contrib/development/bench was called
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, 150)  # the tables need that
    try:
        measured = run(given, began)
    except (MeasuringError, SpooldError, OSError, SubprocessError, DockerException) as error:
        sys.exit(f"contrib/development/bench: {error}")
    report.show(measured, console)
    given.json.write_text(json.dumps(measured, indent=2) + "\n")
    written = f"the report as JSON: {given.json}"
    if "results" in measured:
        about = measured["machine"]
        engine = f"Docker {about['docker']} with {about['runtime']}"
        title = f"spoold and others: {about['cpus']} CPUs, {about['cpu']}, {engine}"
        given.chart.write_text(report.chart(measured["results"], title))
        written += f", as a chart: {given.chart}"
    say(f"{written} ({time.monotonic() - began:.0f} s in all)")


def run(given: argparse.Namespace, began: float) -> dict[str, Any]:
    """Return all that was measured."""
    deadline = Deadline(began, options.QUICK) if given.quick else Deadline(began)
    about = report.machine(given.docker, given.work)  # before we are a load ourselves
    with ExitStack() as stack:
        if given.growth:
            measured = {"growth": growth.measure(given, stack)}
        else:
            lies = places.provide(given.work, stack, deadline)
            about |= {f"file_system_{name}": report.file_system(place) for name, place in lies.items()}
            measured = side_by_side(given, stack, lies, deadline)
    return {"machine": about, **measured, "left_out": deadline.left_out, "late": deadline.broken()}


def side_by_side(
    given: argparse.Namespace, stack: ExitStack, lies: dict[str, Path], deadline: Deadline
) -> dict[str, Any]:
    """Measure the spools, some of which lie in the places ``lies``, and the peers; return the figures."""
    wanted = spools.possible(spools.SPOOLS if given.quick else spools.SPOOLS | spools.MORE_SPOOLS, deadline)
    with deadline.step("starting the spools", START):
        started = spools.start(given, stack, wanted, lies)
    others = peers(given, started[spools.MAIN], stack)
    ways: list[Way] = [*started.values(), *others]
    with deadline.step("turns"):
        cells = measure(ways, effort(given, deadline), deadline)
    measured = {
        "rate": given.rate,
        "results": report.results(cells),
        "peers": {peer.name: peer.about for peer in others if peer.about},
        "peers_mb": peers_memory(given, others),
    }
    return measured | beside_work(given, stack, lies, started, deadline)


def effort(given: argparse.Namespace, deadline: Deadline) -> Effort:
    """Return how much is measured in turns; with --quick, as much as there is time for at the machine's pace."""
    if not given.quick:
        return Effort(samples=200, seconds=given.seconds, rounds=6, burst=16, rate=given.rate)
    kept = 0.0
    for usual in EVENTS:
        if kept + usual * deadline.pace <= (1 - TURNS_PART) * deadline.left:
            kept += usual * deadline.pace
    left = deadline.left - kept
    rounds = 2 if deadline.pace < BUSY else 1
    seconds = min(given.seconds, left)
    return Effort(samples=60, seconds=seconds, rounds=rounds, burst=4, rate=given.rate, warming=left)


def beside_work(
    given: argparse.Namespace, stack: ExitStack, lies: dict[str, Path], started: dict[str, Served], deadline: Deadline
) -> dict[str, Any]:
    """Measure what else happens to the spools, as far as there is time, and return the figures."""
    measured: dict[str, Any] = {}
    sizes, seconds = (QUICK_SIZES, 2.0) if given.quick else (FULL_SIZES, 15.0)
    builds, building = (QUICK_BUILDS, [spools.MAIN]) if given.quick else (FULL_BUILDS, [spools.MAIN, "spool-recycled"])
    if deadline.allows("waiting", SCALING, MEMORY + RECOVERY):
        with deadline.step("waiting"):
            measured["scaling"] = events.scaling(started[spools.ONLY], sizes, seconds)
            if not given.quick:
                measured["executors"] = executors(started[spools.ONLY], given.work, SHARED)
    if deadline.allows("new environments", ENVIRONMENTS, MEMORY + RECOVERY):
        with deadline.step("new environments"):
            if not given.quick:
                started |= spools.start(given, stack, {spools.BURST: spools.BURST_SPOOL}, lies)
                building = [spools.BURST, *building]
            measured["environments"] = {name: events.environments(started[name], *builds) for name in building}
    if deadline.allows("memory", MEMORY, RECOVERY):
        with deadline.step("memory"):
            measured |= memory(given, started)
    if deadline.allows("kill -9", RECOVERY):
        with deadline.step("kill -9"):
            measured["recovery_s"] = events.recovery(started[spools.MAIN])
    return measured


def memory(given: argparse.Namespace, started: dict[str, Served]) -> dict[str, Any]:
    """End all spools but one, and return the memory of its daemons and of the engine."""
    for name, served in started.items():
        if name != spools.MAIN:
            served.daemons.end()
    time.sleep(1.0)  # until the memory of the other spools is freed
    daemons = started[spools.MAIN].daemons.memory()
    return {
        "memory_mb": daemons | {"total": round(sum(daemons.values()), 1)},
        "engine_mb": engine_memory(given.docker, started[spools.MAIN]),
    }


def peers(given: argparse.Namespace, served: Served, stack: ExitStack) -> list[Peer]:
    """Return the peers."""
    made: list[Peer] = [make(name, served) for name, make in ON_STORE.items()]
    if given.isolate:
        made.append(Isolate("isolate", served, given.isolate))
    if given.nsjail:
        made.append(Nsjail("nsjail", served, given.nsjail))
    if given.go_judge:
        made.append(GoJudge("go-judge", given.go_judge, served))
    if given.piston:
        made.append(Piston("piston", given.piston))
    for peer in made:
        stack.callback(peer.close)
    return made


def peers_memory(given: argparse.Namespace, others: Sequence[Peer]) -> dict[str, float | str]:
    """Return the MB of each peer that is a server, or why that is not known."""
    found: dict[str, float | str] = {}
    for peer in others:
        if peer.url:
            try:
                found[peer.name] = memory_of(given.pids.get(peer.name) or listener_of(peer.url))
            except UnknownError as error:
                found[peer.name] = str(error)
    return found


if __name__ == "__main__":
    main()
