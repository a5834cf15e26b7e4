"""Executors of a pool: they end by themselves, route only, say where their store is, and leave nothing behind."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from filelock import FileLock

from spoold import daemon
from spoold.actors.executor import Executor
from spoold.actors.executor import life as executor_life
from spoold.actors.executor.life import LONGEST_START, Life
from spoold.actors.executor.peers import Peers
from spoold.config import ExecutorSettings, LeaseSettings, NixSettings, Settings
from spoold.doctor import stores as doctor
from spoold.host import machine
from spoold.host.clock import Clock
from spoold.model.findings import Level
from spoold.model.job import Runtime
from spoold.model.states import Role, State
from spoold.spool import layout
from spoold.upkeep import stores
from spoold.upkeep.leavings import ABANDONED, LOOK, Leavings
from spoold.upkeep.stores import look, noted
from tests.actors.bench import Bench, settings_for
from tests.names import named
from tests.standins import store_path
from tests.waiting import until

LEASE = LeaseSettings(renewal=5.0, limit=30.0)
PATIENCE = 100.0


class Hand(Clock):
    """A clock whose times the test sets."""

    now, files = 1000.0, 1_000_000.0

    def monotonic(self) -> float:
        return self.now

    def file_system(self) -> float:
        return self.files


# -- idle and lifetime


def test_idle_counts_from_the_last_work() -> None:
    life = Life(ExecutorSettings(idle=10), 50.0)
    life.ready(100.0)
    assert life.over(109.0, float("-inf")) == ""
    assert life.over(109.0, 109.0) == ""
    assert life.ends == 119.0
    assert "no work for 10 s" in life.over(119.0, 109.0)


def test_a_start_uses_up_no_idle_time_unless_it_takes_very_long() -> None:
    life = Life(ExecutorSettings(idle=10), 100.0)
    assert life.over(150.0, 100.0) == ""
    life.ready(155.0)
    life.ready(160.0)
    assert life.over(164.0, 100.0) == ""
    assert "no work for 10 s" in life.over(165.0, 100.0)
    never = Life(ExecutorSettings(idle=10), 100.0)
    assert never.over(109.0 + LONGEST_START, 100.0) == ""
    assert "no work for 10 s" in never.over(110.0 + LONGEST_START, 100.0)


def test_lifetime_counts_from_the_start_whatever_there_is_to_do() -> None:
    life = Life(ExecutorSettings(idle=10, lifetime=50), 100.0)
    assert life.over(149.0, 149.0) == ""
    assert "lifetime of 50 s" in life.over(150.0, 150.0)


@pytest.mark.parametrize("settings", [ExecutorSettings(), ExecutorSettings(idle=1, route_only=True)])
def test_others_do_not_end_by_themselves(settings: ExecutorSettings) -> None:
    life = Life(settings, 0.0)
    assert life.over(1e9, 0.0) == ""
    assert life.ends is None


@pytest.fixture
def idle_bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, settings_for(tmp_path, executor=ExecutorSettings(slots=2, idle=0.3)))
    yield made
    made.close()


def test_an_executor_is_not_idle_while_a_job_runs_and_is_after_it(idle_bench: Bench) -> None:
    bench = idle_bench
    bench.sandbox.gate.clear()
    bench.drop("a")
    bench.until(lambda: bench.sandbox.jobs)
    bench.until(lambda: machine_time_passed(bench, 0.4))
    assert bench.executor.over == ""
    bench.sandbox.gate.set()
    bench.wait_for("a")
    bench.until(lambda: bench.executor.over)


def machine_time_passed(bench: Bench, seconds: float, began: list[float] = []) -> bool:  # noqa: B006 - per test process
    now = bench.spool.clock.monotonic()
    began.append(now)
    return now - began[0] > seconds


def test_a_pilot_whose_engine_takes_longer_than_idle_does_its_work(idle_bench: Bench) -> None:
    bench = idle_bench
    bench.sandbox.away = True
    bench.drop("a")
    began = bench.spool.clock.monotonic()
    bench.until(lambda: bench.spool.clock.monotonic() > began + 0.4)
    assert bench.executor.over == ""
    bench.sandbox.away = False
    bench.wait_for("a")
    bench.until(lambda: bench.executor.over)


def test_what_waits_for_an_engine_that_is_away_is_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_life, "LONGEST_START", 0.0)
    bench = Bench(tmp_path, settings_for(tmp_path, executor=ExecutorSettings(slots=2, idle=0.3)))
    bench.sandbox.away = True
    bench.drop("a")
    bench.until(lambda: bench.executor.over)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    root = tmp_path / "spool"
    layout.create(str(root))
    (tmp_path / "spoold.toml").write_text("[lease]\nrenewal = 0.1\n")
    return root


# Nothing is ready here, which an executor awaits for a minute.
EXECUTOR = """
from spoold.actors.executor import life
from spoold.cli.daemon import main
life.LONGEST_START = 0.0
main()
"""


def executor(spool: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", EXECUTOR, "--spool", str(spool), "executor", *options]
    env = os.environ | {"SPOOLD_CONFIG": str(spool.parent / "spoold.toml")}
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE)


@pytest.mark.parametrize(
    ("option", "why"),
    [(("--idle", "0.2"), b"no work for 0.2 s"), (("--lifetime", "0.2"), b"lifetime of 0.2 s is over")],
)
def test_its_process_ends_with_success_and_leaves_nothing_in_tmp(
    spool: Path, option: tuple[str, str], why: bytes
) -> None:
    with executor(spool, "--name", "pool-0", *option) as process:
        said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0, said
    assert why in said
    assert os.listdir(spool / "tmp") == []


def test_one_that_is_told_to_end_before_leaves_nothing_either(spool: Path) -> None:
    with executor(spool, "--name", "pool-0", "--idle", "3600") as process:
        until((spool / "tmp" / "executor-pool-0.held").exists)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert os.listdir(spool / "tmp") == []


def test_one_of_no_pool_keeps_its_name(spool: Path) -> None:
    with executor(spool) as process:
        until((spool / "tmp" / "executor-default.held").exists)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert (spool / "tmp" / "executor-default.lock").exists()


def test_whoever_takes_the_lock_of_one_that_took_it_along_takes_a_new_one(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = FileLock.acquire, list[object]()

    def acquire(lock: FileLock, **options: Any) -> object:
        """Lock, and remove the file the first time, like a former holder at just that moment."""
        result = real(lock, **options)
        if not tries:
            os.unlink(spool / "tmp" / "health.lock")
        tries.append(1)
        return result

    monkeypatch.setattr(FileLock, "acquire", acquire)
    monkeypatch.setattr(daemon.Main, "run", lambda _: tries.append((spool / "tmp" / "health.lock").exists()))
    daemon.serve(settings_for(spool), [Role.HEALTH])
    assert tries == [1, 1, True]


# -- routers


@pytest.fixture
def routed(tmp_path: Path) -> Iterator[tuple[Bench, Executor]]:
    """Yield a bench whose executor only routes and has no engine. No executor runs anything."""
    settings = settings_for(tmp_path, executor=ExecutorSettings(slots=2, route_only=True))
    made = Bench(tmp_path, settings)
    made.executor.stop()

    def no_engine(_: Runtime) -> object:
        raise AssertionError("a router made an engine")

    made.executor = Executor(settings, no_engine)  # type: ignore[arg-type]
    made.executor.start()
    yield made, made.executor
    made.close()


def test_a_router_has_builds_made_and_leaves_jobs_to_others(routed: tuple[Bench, Executor]) -> None:
    bench, router = routed
    bench.drop("a")
    bench.until(bench.builds.finished)
    for _ in range(20):
        bench.step()
    assert bench.names("building") == {named("a")}
    assert bench.names("running") == set()
    bench.drop("b")  # its build exists, so the router leaves it where it is
    for _ in range(20):
        bench.step()
    assert bench.names("new") == {named("b")}
    other = msgspec.structs.replace(bench.settings, executor=ExecutorSettings(name="other", slots=2))
    bench.executor = Executor(other, lambda _: bench.sandbox)
    bench.executor.start()
    bench.wait_for("a", "b")
    router.step()
    router.stop()


def test_a_router_answers_what_needs_no_sandbox(routed: tuple[Bench, Executor]) -> None:
    bench, _ = routed
    bench.drop_bytes("list", b'{"kind": "list-dependencies"}')
    bench.wait_for("list")
    bench.drop("bad", expression="broken")
    bench.wait_for("bad")
    assert bench.response("bad")["status"] == "DEPENDENCIES_FAILED"


def test_what_a_router_left_is_looked_at_again_when_its_name_comes_back(routed: tuple[Bench, Executor]) -> None:
    """The entry is taken, loses its build, and is given back. The router notices that it was gone."""
    bench, router = routed
    bench.drop("a")
    bench.until(bench.builds.finished)
    for _ in range(20):
        bench.step()
    os.rename(bench.root / "building" / named("a"), bench.root / "away")
    bench.until(lambda: named("a") not in router._seen.left(State.BUILDING), router.step)


def test_others_leave_nothing_to_a_router_and_it_comes_last(tmp_path: Path) -> None:
    clock = Hand(str(tmp_path / "probe"))
    for name in ("executor-a", "executor-b", "router-head"):
        (tmp_path / f"{name}.host").write_text("")
        os.utime(tmp_path / f"{name}.host", (clock.files, clock.files))
    found = {name: Peers(str(tmp_path), name, LEASE, clock) for name in ("executor-a", "executor-b", "router-head")}
    for each in found.values():
        each.look()
    assert found["executor-a"].count == 2
    for number in range(50):
        id_ = f"job-{number}"
        assert sorted(found[name].rank(id_) for name in ("executor-a", "executor-b")) == [0, 1]
        assert found["router-head"].rank(id_) == 2


def test_a_router_that_is_alone_waits_for_nobody(tmp_path: Path) -> None:
    alone = Peers(str(tmp_path), "router-head", LEASE, Hand(str(tmp_path / "probe")))
    alone.look()
    assert alone.rank("job") == 0


# -- files of killed executors


@pytest.fixture
def clock(tmp_path: Path) -> Hand:
    return Hand(str(tmp_path / "probe"))


def left(spool: Path, process: str, mtime: float) -> None:
    """Leave the files of a killed executor."""
    tmp = spool / "tmp"
    (tmp / f"{process}.held").mkdir()
    (tmp / f"{process}.held" / named("a")).symlink_to("held")
    os.utime(tmp / f"{process}.held", (mtime, mtime))
    for ending in (".lock", ".host", ".host.probe", ".probe", ".usage", ".store"):
        (tmp / f"{process}{ending}").write_text("")
        os.utime(tmp / f"{process}{ending}", (mtime, mtime))


def looks(leavings: Leavings, clock: Hand) -> list[str]:
    """Look twice, with the usual pause in between."""
    found = leavings.step()
    clock.now += LOOK
    return found + leavings.step()


def test_what_executors_left_that_are_long_gone_goes(spool: Path, clock: Hand) -> None:
    old = clock.files - ABANDONED - 1
    left(spool, "executor-pool-7", old)
    left(spool, "router-head", old)
    for name in ("health.lock", "requeue.lock", "health.probe", "builder.host"):
        (spool / "tmp" / name).write_text("")
        os.utime(spool / "tmp" / name, (old, old))
    assert sorted(looks(Leavings(str(spool), LEASE, clock), clock)) == ["executor-pool-7", "router-head"]
    assert set(os.listdir(spool / "tmp")) == {"health.lock", "requeue.lock", "health.probe", "builder.host"}


def test_what_is_renewed_stays(spool: Path, clock: Hand) -> None:
    left(spool, "executor-a", clock.files - ABANDONED - 1)
    os.utime(spool / "tmp" / "executor-a.host", (clock.files - ABANDONED + 1,) * 2)
    assert looks(Leavings(str(spool), LEASE, clock), clock) == []


def test_after_a_host_slept_everybody_gets_the_time_to_renew(spool: Path, clock: Hand) -> None:
    left(spool, "executor-a", clock.files - ABANDONED - 1)
    leavings = Leavings(str(spool), LEASE, clock)
    assert leavings.step() == []
    os.utime(spool / "tmp" / "executor-a.host", (clock.files,) * 2)
    clock.now += LOOK
    assert leavings.step() == []
    assert (spool / "tmp" / "executor-a.held").exists()


def test_one_that_is_stopped_on_this_host_keeps_its_name(spool: Path, clock: Hand) -> None:
    left(spool, "executor-a", clock.files - ABANDONED - 1)
    with open(spool / "tmp" / "executor-a.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert looks(Leavings(str(spool), LEASE, clock), clock) == []
        assert (spool / "tmp" / "executor-a.held").exists()


def test_health_does_it(bench: Bench) -> None:
    left(bench.root, "executor-gone", 1000.0)
    bench.health._leavings._lease = LeaseSettings(renewal=0.001)  # otherwise it would need another look a minute later

    def step() -> None:
        bench.health._leavings._rests_until = 0.0
        bench.health.step()

    bench.until(lambda: not bench.has("tmp", "executor-gone.host"), step)
    assert not bench.has("tmp", "executor-gone.held")
    assert bench.has("tmp", "executor-default.held")


# -- where the store is


def runtime_in(store: Path) -> Runtime:
    paths = [store_path("bash"), store_path("coreutils")]
    for each in paths:
        (store / os.path.basename(each)).mkdir(parents=True)
    return Runtime(system="x86_64-linux", bash=paths[0], coreutils=paths[1], nixpkgs={}, closure=paths)


def test_an_executor_notes_what_it_sees_of_the_store(bench: Bench) -> None:
    bench.step()
    bench.until(lambda: noted(str(bench.root)))
    seen = noted(str(bench.root))["executor-default"]
    assert seen.host == os.uname().nodename
    assert seen.path == bench.settings.nix.physical_store
    assert seen.engine == ""
    assert seen.spool is not None
    assert (seen.spool.polled, seen.spool.shows) == (False, True)
    assert abs(seen.spool.apart) < 60


def test_an_executor_notes_why_it_takes_no_work(bench: Bench) -> None:
    def engine() -> str:
        notes = noted(str(bench.root))
        return notes["executor-default"].engine if notes else ""

    bench.sandbox.away = True
    bench.until(lambda: engine() == "the engine is away")
    bench.sandbox.away = False
    bench.until(lambda: engine() == "")


def test_a_store_that_is_closed_to_an_executor_is_noted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/srv/store")

    monkeypatch.setattr(stores, "look", closed)
    bench.until(lambda: noted(str(bench.root)))
    assert noted(str(bench.root))["executor-default"].lacks == "/srv/store"


def test_a_note_that_cannot_be_read_counts_as_none(spool: Path) -> None:
    (spool / "tmp" / "executor-a.store").write_text("{")
    assert noted(str(spool)) == {}


def test_what_is_missing_from_the_store_is_named(tmp_path: Path) -> None:
    settings = NixSettings(state=str(tmp_path))
    runtime = runtime_in(Path(settings.physical_store))
    assert look(settings, runtime).lacks == ""
    (Path(settings.physical_store) / os.path.basename(runtime.coreutils)).rmdir()
    assert look(settings, runtime).lacks == runtime.coreutils
    assert look(NixSettings(state=str(tmp_path / "none")), runtime).lacks.startswith(str(tmp_path / "none"))


def test_the_doctor_tells_of_stores_from_here_and_from_other_hosts(spool: Path, tmp_path: Path) -> None:
    settings = settings_for(spool, nix=NixSettings(state=str(tmp_path / "state")))
    runtime = runtime_in(Path(settings.nix.physical_store))
    theirs = {"host": "node1", "path": "/srv/store", "file_system": "nfs4", "remote": True, "read_only": True}
    (spool / "tmp" / "executor-pool-0.store").write_bytes(msgspec.json.encode(theirs))
    (spool / "tmp" / "executor-pool-1.store").write_bytes(msgspec.json.encode(theirs | {"lacks": "/nix/store/x"}))
    here, good, bad = doctor.examine(settings, runtime)
    assert (here.level, good.level, bad.level) == (Level.FINE, Level.FINE, Level.REFUSED)
    assert "executor-pool-0 on node1" in good.what
    assert "nfs4, read-only" in good.detail
    assert "/nix/store/x" in bad.detail


SEEN = {"file_system": "nfs4", "remote": True, "polled": True, "apart": 0.1, "shows": True}


@pytest.mark.parametrize(
    ("spool_seen", "engine", "found"),
    [
        ({}, "", {"spool": Level.FINE}),
        ({"polled": False}, "", {"spool": Level.WARNING}),
        ({"shows": False}, "", {"spool": Level.REFUSED}),
        ({"apart": -90.0}, "", {"spool": Level.FINE, "clock": Level.WARNING}),
        ({}, "no control group can be made", {"spool": Level.FINE, "sandbox engine": Level.REFUSED}),
    ],
)
def test_the_doctor_tells_of_what_is_seen_from_a_node(
    spool: Path, spool_seen: dict[str, object], engine: str, found: dict[str, Level]
) -> None:
    theirs = {"host": "node1", "path": "/srv/store", "engine": engine, "spool": SEEN | spool_seen}
    (spool / "tmp" / "executor-pool-0.store").write_bytes(msgspec.json.encode(theirs))
    where = ", from executor-pool-0 on node1"
    told = {each.what: each.level for each in doctor.examine(settings_for(spool), None)}
    assert told == {f"{what}{where}": level for what, level in ({"store": Level.FINE} | found).items()}


@pytest.mark.parametrize(
    ("builder", "read_only", "level"),
    [("", 0, Level.REFUSED), ("node9 1", 0, Level.NOTE), ("", os.ST_RDONLY, Level.FINE)],
)
def test_a_store_that_is_mounted_is_for_executors_alone(
    spool: Path, monkeypatch: pytest.MonkeyPatch, builder: str, read_only: int, level: Level
) -> None:
    if builder:
        (spool / "tmp" / "builder.host").write_text(builder)
    monkeypatch.setattr(machine, "mount_of", lambda _: machine.Mount("/srv", "nfs4"))

    class Status:
        f_flag = read_only

    monkeypatch.setattr(os, "statvfs", lambda _: Status)
    settings = settings_for(spool, nix=NixSettings(state=str(spool.parent)))
    assert [found.level for found in doctor.examine(settings, None)] == [level]


def test_settings_have_names_of_processes() -> None:
    assert Settings().executor.process == "executor-default"
    assert ExecutorSettings(name="head", route_only=True).process == "router-head"
