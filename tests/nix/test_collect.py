"""Garbage collection on a real store: what it removes, what it keeps, and builds that run meanwhile."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pytest

from spoold.model.errors import TemporaryError
from spoold.model.job import BuildResult
from spoold.nix import collect, usage
from spoold.nix.build import NixBuilder
from spoold.nix.lock import BuildLock
from tests.nix import room
from tests.nix.room import Copy
from tests.waiting import until

pytestmark = pytest.mark.nix


def built(builder: NixBuilder, build_id: str, attributes: str) -> BuildResult:
    result = builder.build(build_id, room.SHELL % attributes, "default", Event())
    assert result.shell, result.phase.stderr
    return result


def verified(builder: NixBuilder) -> None:
    """Assert that the store has exactly the paths in its database, whole, and no half-deleted one."""
    builder.store.ask(["nix-store", "--verify"])
    assert "error" not in builder.store.run(["nix-store", "--verify"]).stderr.data.decode()
    on_disk = {name for name in os.listdir(builder.store.physical) if name != ".links" and not name.endswith(".lock")}
    with builder.store.database() as database:
        valid = {os.path.basename(row[0]) for row in database.execute("SELECT path FROM ValidPaths")}
    assert on_disk == valid


def test_what_nobody_needs_goes_and_all_else_stays(copy: Copy) -> None:
    runtime = copy().prepare()
    kept = built(copy(), "kept", 'packages = [ pkgs.jq ]; own = pkgs.writeText "kept" "k";')
    gone = built(copy(), "gone", 'packages = [ pkgs.jq pkgs.lua ]; own = pkgs.writeText "gone" "g";')
    builder = copy()
    only_gone = set(gone.closure) - set(kept.closure) - set(runtime.closure)
    assert {path.rpartition("-")[2] for path in only_gone} >= {"gone"}

    before = usage.Graph(builder.store)
    expected = collect.preview(builder.store, {"kept"})
    counted = builder.collect({"kept"}, dry_run=True)
    assert expected.builds == ["gone"]
    assert (counted.paths, counted.freed) == (len(expected.paths), expected.freed)
    assert builder.store.valid(gone.closure), "a dry run deletes nothing"

    assert builder.collect({"kept"}, dry_run=False) == counted
    assert builder.collect({"kept"}, dry_run=False).paths == 0
    after = usage.Graph(builder.store)
    assert before.size.keys() - after.size.keys() == set(expected.paths)
    assert only_gone < set(expected.paths)
    assert sum(before.size.values()) - sum(after.size.values()) == counted.freed > 0
    assert builder.store.valid(kept.closure)
    assert builder.store.valid([*runtime.closure, *runtime.nixpkgs.values()])
    assert builder.store.valid(list(builder.store.roots.targets("sources").values()))
    assert not any(path.endswith(".drv") for path in after.size)
    assert set(builder.store.roots.targets("builds")) == {"kept"}
    verified(builder)
    assert room.enter(builder, kept.shell, "jq --version && cat $own").endswith(b"k")

    again = built(builder, "gone", 'packages = [ pkgs.jq pkgs.lua ]; own = pkgs.writeText "gone" "g";')
    assert again.closure == gone.closure
    assert room.enter(builder, again.shell, "cat $own") == b"g"


def test_sizes(copy: Copy) -> None:
    built(copy(), "one", 'own = pkgs.writeText "one" "1"; shared = pkgs.writeText "shared" "s";')
    two = built(copy(), "two", 'packages = [ pkgs.lua ]; shared = pkgs.writeText "shared" "s";')
    builder = copy()
    graph, sizes = usage.Graph(builder.store), builder.sizes()
    assert sizes.store == sum(graph.size.values())
    assert 0 < sizes.free < os.statvfs(builder.store.state).f_blocks * os.statvfs(builder.store.state).f_frsize
    assert set(sizes.own) == {"one", "two"}
    builder.collect({"one", "two"}, dry_run=False)
    assert builder.collect({"one"}, dry_run=False).freed == sizes.own["two"] >= graph.size[two.shell]
    assert builder.collect(set(), dry_run=False).freed > sizes.own["one"], "shared paths go with the last build"


def test_a_build_that_is_just_rooted_is_kept_unasked(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = copy()
    result = built(builder, "new", "A = 1;")
    builder.collect(set(), dry_run=False)
    assert builder.store.valid(result.closure)
    monkeypatch.setattr("spoold.nix.build.GRACE", 0)
    builder.collect(set(), dry_run=False)
    assert not builder.store.valid([result.shell])


def test_a_build_that_a_collection_waits_for_is_kept(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build starts after the list to keep was made. Its root is there before the collection reads the roots."""
    builder = copy()
    exclusive = builder.store.lock.exclusive
    results: list[BuildResult] = []

    def waiting(*arguments: Any) -> Any:
        if not results:
            results.append(built(builder, "late", "A = 1;"))
        return exclusive(*arguments)

    monkeypatch.setattr(builder.store.lock, "exclusive", waiting)
    builder.collect(set(), dry_run=False)
    assert builder.store.valid(results[0].closure)
    assert set(builder.store.roots.targets("builds")) == {"late"}


def test_builds_and_collections_at_once(copy: Copy) -> None:
    """Every build succeeds and is whole, though its dependencies are deleted again and again."""
    builder = copy()
    ended, errors, results = Event(), [], []
    even = {f"b{number}" for number in range(0, 1000, 2)}
    looked_at: set[str] = set()  # the build that is being made and checked

    def collecting() -> None:
        while not ended.is_set():
            try:
                builder.collect(even | looked_at, dry_run=False)
            except TemporaryError as error:
                errors.append(error)

    collector = threading.Thread(target=collecting)
    collector.start()
    try:
        for number in range(5):
            looked_at = {f"b{number}"}
            # The collections leave no dependencies, so each of these builds takes many derivations.
            inner = f'pkgs.runCommand "inner" {{ }} "echo {number} > $out"'
            outer = f'pkgs.runCommand "outer" {{ inner = {inner}; }} "sleep 0.1; cat $inner > $out; echo >> $out"'
            result = built(builder, f"b{number}", f"packages = [ pkgs.lua ]; outer = {outer}; N = {number};")
            assert builder.store.valid(result.closure)
            assert all(os.path.lexists(builder.store.on_disk(path)) for path in result.closure)
            results.append(result)
    finally:
        ended.set()
        collector.join()
    assert errors == []
    builder = copy()
    builder.collect(even, dry_run=False)
    for number, result in enumerate(results):
        assert builder.store.valid([result.shell]) is (number % 2 == 0)
    verified(builder)


def test_a_long_build_is_waited_for_and_holds_up_no_other(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "DRAIN_TIMEOUT", 0.5)
    builder, cancelled = copy(), Event()
    left = built(copy(), "left", "A = 1;")

    mark = f"sleep 1000.{time.time_ns()}"

    def building() -> None:
        script = f'X = pkgs.runCommand "long" {{ }} "{mark}";'
        with pytest.raises(TemporaryError, match="cancelled"):
            builder.build("long", room.SHELL % script, "default", cancelled)

    thread = threading.Thread(target=building)
    thread.start()
    try:
        room.until_runs(mark)
        swept = collect.collect(builder.store, set, seconds=60, cancel=Event())
        assert swept == collect.Sweep(builds=[], paths=[], freed=0, complete=False)
        assert builder.store.valid([left.shell])
        collector = threading.Thread(target=builder.collect, args=(set(),), kwargs={"dry_run": False})
        collector.start()
        built(builder, "short", "A = 2;")
        assert thread.is_alive(), "no build waited for its end"
        collector.join()
    finally:
        cancelled.set()
        thread.join()
    builder.collect(set(), dry_run=False)
    assert not builder.store.valid([left.shell])


def test_builds_get_in_between_two_steps(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The collection goes on until it is cancelled."""
    step, taken = collect._step, 0

    def endless(*arguments: Any) -> bool:
        nonlocal taken
        step(*arguments)
        taken += 1
        return False

    monkeypatch.setattr(collect, "_step", endless)
    monkeypatch.setattr(collect, "DRAIN_TIMEOUT", 3600)  # because the build may take long here
    builder, cancelled = copy(), Event()
    arguments = {"dry_run": False, "cancelled": cancelled, "seconds": 3600}
    collector = threading.Thread(target=builder.collect, args=(set(),), kwargs=arguments)
    collector.start()
    try:
        until(lambda: taken > 0)
        built(builder, "between", "A = 3;")
        before = taken
        until(lambda: taken > before)
    finally:
        cancelled.set()
        collector.join()


def test_builds_without_a_pause_keep_no_collection_out(tmp_path: Path) -> None:
    lock, ended, never = BuildLock(tmp_path), Event(), Event()

    def builds(first: float) -> None:
        time.sleep(first)
        while not ended.is_set():
            with lock.shared(never):
                time.sleep(0.2)

    threads = [threading.Thread(target=builds, args=(first,)) for first in (0, 0.05, 0.1, 0.15)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.3)
        for _ in range(3):
            with lock.exclusive(60, never) as alone:
                assert alone
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_a_build_can_be_cancelled_while_it_waits_for_a_collection(copy: Copy) -> None:
    builder, cancelled = copy(), Event()
    with builder.store.lock.exclusive(1, Event()) as alone:
        assert alone
        threading.Timer(0.2, cancelled.set).start()
        with pytest.raises(TemporaryError, match="waited for a collection"):
            builder.build("waits", "1", "default", cancelled)


def test_small_steps_come_to_the_same(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "STEP_BYTES", 1)
    monkeypatch.setattr(collect, "STEP_SECONDS", 0.02)
    monkeypatch.setattr(collect, "PAUSE", 0)
    builder = copy()
    everything = {f"b{number}" for number in range(3)}
    for name in everything:
        built(builder, name, f'own = pkgs.writeText "{name}" "x";')
    while not builder.collect(everything, dry_run=False).complete:
        pass  # each path may take a step
    assert builder.collect(everything, dry_run=True).paths == 0
    verified(builder)


def test_an_end_before_the_end(copy: Copy) -> None:
    cancelled = Event()
    cancelled.set()
    builder = copy()
    expected = builder.collect(set(), dry_run=True)
    assert builder.collect(set(), dry_run=False, cancelled=cancelled).paths == 0
    assert builder.collect(set(), dry_run=False) == expected


def is_free(lock: Path) -> bool:
    """Tell whether nobody holds a lock."""
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


KILLED = """
import sys, msgspec
from spoold.config import Settings
from spoold.nix.build import NixBuilder
from spoold.nix.lock import BuildLock
builder = NixBuilder(msgspec.json.decode(sys.stdin.readline(), type=Settings))
builder.prepare()
print("ready", flush=True)
builder.collect({"kept"}, dry_run=False)
print("done", flush=True)
"""


@pytest.mark.parametrize("delay", [0.01, 0.05, 0.1, 0.2, 0.4])
def test_a_collection_that_was_killed(copy: Copy, delay: float) -> None:
    builder = copy()
    kept = built(builder, "kept", "packages = [ pkgs.lua ];")
    built(builder, "gone", 'own = pkgs.writeText "gone" "x";')
    for name in ("builds/.gone.1.00000000", "runtime/.bash.1.00000000"):
        (builder.store.roots.directory / name).symlink_to(kept.shell)
    daemon = subprocess.Popen([sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert daemon.stdin is not None
    assert daemon.stdout is not None
    with daemon.stdin, daemon.stdout:
        daemon.stdin.write(msgspec.json.encode(builder.settings) + b"\n")
        daemon.stdin.flush()
        assert daemon.stdout.readline() == b"ready\n"
        time.sleep(delay)
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
    after = copy()
    # a process that was just starting may hold the lock for a moment
    until(lambda: is_free(builder.store.room / "store.lock"))
    result = built(after, "new", 'own = pkgs.writeText "gone" "x"; packages = [ pkgs.lua ];')
    after.collect({"kept", "new"}, dry_run=False)
    assert set(after.store.roots.targets("builds")) == {"kept", "new"}
    assert not any("/." in name for name in after.store.roots.targets())
    assert after.store.valid([*kept.closure, *result.closure])
    verified(after)
