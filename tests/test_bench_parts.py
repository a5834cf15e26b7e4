"""The parts of contrib/development/bench that choose what to measure and print the results, without an engine."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from benchmarks import boxes, deadline, engine, footprint, growth, places, served, turns, ways
from benchmarks.deadline import Deadline
from benchmarks.programs import PROGRAMS, TRIVIAL, Program
from benchmarks.report import file_system
from benchmarks.turns import Effort, measure, percentile
from benchmarks.ways import Way
from tests.waiting import until


class Clock:
    """A monotonic clock that moves when the test tells it to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (deadline, turns):
        monkeypatch.setattr(module, "time", made)
    return made


class Slow:
    """A way to run programs that takes ``seconds`` for each, two at once."""

    def __init__(self, name: str, seconds: float, clock: Clock) -> None:
        self.name = name
        self.programs: tuple[Program, ...] = PROGRAMS
        self._seconds, self._clock = seconds, clock

    def burst(self, programs: Sequence[Program]) -> float:
        taken = self._seconds * len(programs) / 2
        self._clock.now += taken
        return taken

    def paced(self, program: Program, gaps: list[float]) -> list[float]:
        assert program in self.programs
        self._clock.now += sum(gaps) + self._seconds
        return [self._seconds] * len(gaps)

    def rest(self) -> None:
        pass


QUICK = Effort(samples=60, seconds=40, rounds=2, burst=4, rate=2.0, warming=40)


@pytest.mark.parametrize("load", [1, 10, 100, 1000])
def test_the_turns_end_when_their_time_is_over_whatever_the_load(load: float, clock: Clock) -> None:
    """Only the turn that has begun goes on: four runs at once, and one alone at each rate."""
    ways: list[Way] = [Slow(f"way-{number}", 0.02 * load * number, clock) for number in (1, 2, 4)]
    until_then = Deadline(clock.now, 60)
    began = clock.now
    cells = measure(ways, QUICK, until_then)
    assert clock.now - began <= QUICK.seconds + 4 * 0.08 * load
    left_out = {f"{way.name}{program.suffix}" for way in ways for program in PROGRAMS} - {cell.name for cell in cells}
    assert set(until_then.left_out) == left_out
    assert all(cell.latencies and cell.runs for cell in cells)
    assert bool(left_out) == (load >= 100)


def test_a_cell_without_a_turn_has_the_figures_of_its_warm_up(clock: Clock) -> None:
    cells = measure([Slow("way", 1.0, clock)], Effort(60, 0, 2, 4, 2.0), Deadline(clock.now))
    assert [(cell.runs, cell.turns, len(cell.latencies), cell.common) for cell in cells] == [(2, 1, 1, [])] * 3
    assert percentile([], 50) is None
    assert percentile([0.003, 0.001, 0.002], 50) == 2.0


def test_the_same_rate_is_for_all(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    def gap(rate: float) -> float:
        rates.append(round(rate, 3))
        return 1 / rate

    monkeypatch.setattr(random, "expovariate", gap)
    ways: list[Way] = [Slow("quick", 0.01, clock), Slow("slow", 1.0, clock)]
    cells = measure(ways, Effort(90, 600, 3, 4, 2.5), Deadline(clock.now))
    assert all(cell.common for cell in cells)
    assert {*rates} == {2.5, 0.3 * 200, 0.3 * 2}


def test_a_slow_start_tells_what_there_is_time_for(clock: Clock) -> None:
    run = Deadline(clock.now, 100)
    with run.step("starting", usual=10):
        clock.now += 30
    assert run.allows("first", 15, later=5)
    assert not run.allows("second", 15, later=10)
    assert run.left_out == {"second": "it takes about 45 s at this load, but only 40 s were left for it"}
    assert run.broken() == ""
    with run.step("measuring"):
        clock.now += 75
    assert run.broken() == "105 s instead of 100 s: starting 30 s, measuring 75 s"


def test_where_nothing_is_promised_there_is_time_for_all(clock: Clock) -> None:
    run = Deadline(clock.now)
    clock.now += 1e6
    assert run.allows("anything", 1e6)
    assert run.broken() == ""


def test_a_spool_that_was_counted_too_early_rests_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each rest would wait its full five seconds, which would count in the sustained rate."""
    counted = served.Served.__new__(served.Served)
    counted.containers_at_rest = 2
    monkeypatch.setattr(served, "UNREST", 0.0)
    monkeypatch.setattr(counted, "containers", lambda: 4)
    counted.rest()
    assert counted.containers_at_rest == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_spools_get_places_in_memory_and_with_a_journal(tmp_path: Path) -> None:
    run = Deadline(0.0)
    with ExitStack() as stack:
        made = places.provide(tmp_path, stack, run)
        told = {name: file_system(place) for name, place in made.items()}
        for place in made.values():
            (place / "spool").mkdir()
    assert told["memory"].startswith("tmpfs (")
    if "journal" in told:
        assert told["journal"].startswith("ext4, a journal (")
    else:
        assert "mount" in run.left_out["rows with -journal"]
    mounts = Path("/proc/self/mounts").read_text()
    assert str(tmp_path) not in mounts


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_place_that_cannot_be_made_is_left_out_with_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    run = Deadline(0.0)
    with ExitStack() as stack:
        assert places.provide(tmp_path, stack, run) == {}
    assert run.left_out["rows with -memory"] == "there is no program mount"
    assert run.left_out["rows with -journal"] == "there is no program truncate"


SERVER = """
import http.server, subprocess, sys
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
child = subprocess.Popen([sys.executable, "-c", "import time; held = b'x' * (50 << 20); time.sleep(1000)"])
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def listening() -> Iterator[tuple[int, str]]:
    """Yield the pid and the URL of a server that has a child process."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.pid, f"http://127.0.0.1:{process.stdout.readline().strip()}/"
        subprocess.run(["pkill", "-P", str(process.pid)], check=True)
        process.kill()


def test_a_peer_is_found_by_where_it_listens(listening: tuple[int, str]) -> None:
    pid, url = listening
    assert footprint.listener_of(url) == pid
    assert footprint.listener_of(url.replace("127.0.0.1", "localhost")) == pid
    until(lambda: footprint.memory_of(pid) > 50)  # MB of the child process


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://192.0.2.1:80/"])
def test_a_peer_that_is_not_here_is_told_with_what_to_do(url: str) -> None:
    with pytest.raises(footprint.UnknownError, match="give its pid with --pid"):
        footprint.listener_of(url)


JAIL = """#!/bin/sh
echo "$@" >>"{said}"
while [ "$1" != -- ]; do shift; done
shift
exec env PATH=/usr/bin:/bin "$@"
"""


@pytest.fixture
def on_host() -> served.Served:
    """Return the part of a spool that a peer uses, with the host's own programs in place of the store's."""
    return cast(
        "served.Served",
        SimpleNamespace(
            settings=SimpleNamespace(
                docker=SimpleNamespace(host="unix:///none"), nix=SimpleNamespace(physical_store="/the/store")
            ),
            image="none",
            runtime=SimpleNamespace(bash="/usr"),
            path=lambda _: "/usr/bin:/bin",
        ),
    )


def test_nsjail_is_given_the_store_and_the_limits_of_the_others(tmp_path: Path, on_host: served.Served) -> None:
    """A stand-in for nsjail records its options. Only the real nsjail can tell what they do."""
    program, said = tmp_path / "nsjail", tmp_path / "said"
    program.write_text(JAIL.format(said=said))
    program.chmod(0o755)
    jail = boxes.Nsjail("nsjail", on_host, str(program))
    assert jail.run(TRIVIAL) == "hi\n"
    words = said.read_text()
    for option in ("--bindmount_ro /the/store:/nix/store", "--time_limit 30", "--rlimit_nofile 256", "--mode o"):
        assert option in words
    grouped = "--cgroup_mem_max 1073741824 --cgroup_pids_max 128" in words
    assert grouped == (not jail.about)
    assert grouped or "--rlimit_as 1024" in words
    jail.close()
    assert not any((boxes.GROUPS / kind / boxes.GROUP).exists() for kind in ("", "memory", "pids"))


BOX = """#!/bin/sh
echo "$@" >>"{said}"
case "$*" in *--cg*) {cg} ;; esac
box="{said}$(echo "$*" | sed 's/.*--box-id=\\([0-9]*\\).*/\\1/')"
case "$*" in *--init*) mkdir "$box" || exit 2 ;; *--cleanup*) rm -rf "$box" ;; esac
case "$*" in *--run*) ;; *) exit 0 ;; esac
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""


@pytest.mark.parametrize("grouped", [True, False])
def test_isolate_limits_memory_by_control_groups_where_it_has_them(
    grouped: bool, tmp_path: Path, on_host: served.Served
) -> None:
    program, said = tmp_path / "isolate", tmp_path / "said"
    program.write_text(BOX.format(said=said, cg=":" if grouped else "exit 2"))
    program.chmod(0o755)
    box = boxes.Isolate("isolate", on_host, str(program))
    said.write_text("")
    for _ in range(2 * ways.WORKERS):
        assert box.run(TRIVIAL) == "hi\n"
    words = said.read_text()
    assert ("--cg-mem=1048576" in words) == grouped
    assert ("--mem=1048576" in words.replace("--cg-mem", "")) != grouped
    assert (box.about == "") == grouped
    box.close()


def test_what_runs_in_containers_is_no_part_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        *((10, 1, "dockerd"), (11, 10, "containerd"), (12, 1, "containerd-shim"), (13, 12, "supervisor")),
        *((14, 13, "python3"), (20, 1, "containerd-shim"), (21, 20, "another's")),
    ]
    monkeypatch.setattr(engine, "processes", lambda: found)
    monkeypatch.setattr(engine, "_words_of", lambda pid: ["-id", "ours" if pid == 12 else "another's"])
    served = cast("served.Served", SimpleNamespace(container_ids=lambda: {"ours"}))
    assert engine.processes_of(10, served) == {10, 11, 12}


def test_slopes_are_those_of_logarithms() -> None:
    assert growth.slope([10, 100, 1000], [2, 20, 200]) == 1.0
    assert growth.slope([10, 100, 1000], [5, 5, 5]) == 0.0
    assert growth.slope([1, 4, 16], [1, 16, 256]) == 2.0


def test_kept_answers_are_names_of_a_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = tmp_path / "done"
    done.mkdir()

    def drop(program: Program) -> str:
        for ending in (".json", ".response.json"):
            (done / f"given{ending}").write_text(program.output)
        return "given"

    spool = SimpleNamespace(spool=tmp_path, drop=drop, seen=lambda _: 0.0, check=lambda *_: None)
    monkeypatch.setattr(growth, "LINKS", 10)
    kept = growth.Kept(cast("served.Served", spool))
    kept.fill(7)
    kept.fill(25)
    for ending in (".json", ".response.json"):
        files = [done / f"kept-{number}{ending}" for number in range(25)]
        assert {file.read_text() for file in files} == {"hi\n"}
        assert max(file.stat().st_nlink for file in files) <= 10
    assert len(list(done.iterdir())) == 52
