"""Unused dependencies are removed, least recently used first. Those that a submission in any state needs stay."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from spoold.actors.builder import Builder
from spoold.model.collection import Order, Report, Rules
from spoold.model.ids import Entry
from spoold.model.job import BuildResult
from spoold.model.response import Phase
from spoold.model.states import Kind, State
from spoold.spool.builds import BuildStore
from tests.actors.bench import Bench, settings_for
from tests.names import mine

RULES = Rules(max_age=1000, max_size=0, min_free=0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, settings_for(tmp_path, gc=RULES))
    yield made
    made.close()


def build(bench: Bench, name: str, used: float = 0) -> str:
    """Run a submission with its own environment, last used ``used`` seconds ago. Return the build."""
    before = set(bench.backend.built)
    bench.drop(name, expression=f"# {name}")
    bench.wait_for(name)
    build_id = next(iter(set(bench.backend.built) - before))
    last = time.time() - used
    for user in bench.names("builds/used"):
        if user.startswith(build_id):
            os.utime(bench.root / "builds" / "used" / user, (last, last))
    return build_id


def collect(bench: Bench, *, dry_run: bool = False) -> Report:
    bench.builds.orders.file("test", Order(dry_run=dry_run))
    bench.until(lambda: bench.builds.orders.report("test"), bench.builder.step)
    report = bench.builds.orders.report("test")
    assert report is not None
    return report


def test_what_is_old_goes_and_what_is_used_stays(bench: Bench) -> None:
    old, young = build(bench, "a", used=2000), build(bench, "b", used=10)
    report = collect(bench)
    assert [(verdict.build_id, verdict.why) for verdict in report.deleted] == [(old, "age")]
    assert (report.freed, report.paths) == (10, 1)
    assert bench.builds.finished() == [young]
    assert bench.backend.rooted == {young}


def test_a_dry_run_says_and_does_nothing(bench: Bench) -> None:
    old = build(bench, "a", used=2000)
    report = collect(bench, dry_run=True)
    assert [verdict.build_id for verdict in report.deleted] == [old]
    assert report.freed == 10
    assert bench.builds.finished() == [old]
    assert bench.backend.rooted == {old}


@pytest.mark.parametrize("state", Kind.SUBMISSION.on_its_way)
def test_what_a_submission_needs_stays(bench: Bench, state: State) -> None:
    old = build(bench, "a", used=2000)
    bench.drop("b", expression="# a")
    if state is not State.NEW:
        bench.spool.queue.claim(mine("b"), State.NEW, state)
    assert collect(bench).deleted == []
    assert bench.builds.finished() == [old]


def test_what_is_used_while_one_decides_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    old = build(bench, "a", used=2000)
    looking = BuildStore.looking
    spared: list[str] = []

    def use_and_look(builds: BuildStore, *, exclusive: bool = False) -> AbstractContextManager[None]:
        if exclusive:
            builds.uses.note(old, 4711)
            spared.append(old)
        return looking(builds, exclusive=exclusive)

    monkeypatch.setattr(BuildStore, "looking", use_and_look)
    assert collect(bench).deleted == []
    assert spared == [old], "the collection was about to remove it"
    assert bench.builds.finished() == [old]


def test_a_build_in_progress_keeps_its_paths(bench: Bench) -> None:
    bench.backend.gate.clear()
    bench.drop("a", expression="# slow")
    bench.until(lambda: bench.backend.built)
    bench.backend.rooted.add(bench.backend.built[0])  # the store does this just before the result is published
    collect(bench)
    assert bench.backend.rooted == set(bench.backend.built)
    bench.backend.gate.set()
    bench.wait_for("a")


def test_a_submission_whose_build_was_collected_has_it_built_again(bench: Bench) -> None:
    build(bench, "a", used=2000)
    collect(bench)
    bench.drop("b", expression="# a")
    bench.wait_for("b")
    assert bench.response("b")["status"] == "COMPLETED"
    assert len(bench.backend.built) == 2


def test_health_orders_a_collection_when_it_is_time(tmp_path: Path) -> None:
    rules = Rules(max_age=1000, min_free=0, interval=3600)
    bench = Bench(tmp_path, settings_for(tmp_path, gc=rules))
    old = build(bench, "a", used=2000)
    bench.health.step()
    assert bench.builds.orders.waiting() == {}, "no collection right at the start"
    result = tmp_path / "builds" / "collect" / "scheduled.result.json"
    os.utime(result, (1, 1))
    for _ in range(3):  # the order waits for a builder, however long that takes
        bench.health.step()
        assert bench.builds.orders.waiting().keys() == {"scheduled"}
        assert not bench.builds.orders.waiting()["scheduled"].dry_run
    bench.until(lambda: not bench.builds.orders.waiting(), bench.builder.step)
    assert old not in bench.builds.finished()
    bench.health.step()
    assert bench.builds.orders.waiting() == {}
    bench.close()


def test_a_store_that_lost_paths_is_noticed_at_the_start(bench: Bench) -> None:
    gone, there = build(bench, "a"), build(bench, "b")
    record = bench.builds.result(gone)
    assert record is not None
    bench.backend.lost.add(record.result.shell)
    again = Builder(bench.settings, bench.backend)
    again.start()
    again.stop()
    assert bench.builds.finished() == [there]


def test_an_order_that_is_none_is_removed(bench: Bench) -> None:
    (bench.root / "builds" / "collect" / "x.json").write_bytes(b"{}x")
    bench.until(lambda: bench.names("builds/collect") == set(), bench.builder.step)


def test_a_builder_that_slept_through_a_collection_ends_nothing(bench: Bench) -> None:
    """Another builder ended the build, it was collected, and it is ordered again under the same names."""
    bench.backend.gate.clear()
    bench.drop("a")
    bench.until(lambda: bench.backend.built)
    first = Entry(bench.backend.built[0], 1)
    wanted = bench.builds.read(State.BUILDING, first)
    bench.builder._heartbeat.stop()  # as if it hung
    second = bench.builds.queue.fence(first, State.BUILDING)
    assert second
    bench.builds.finish(second, BuildResult(phase=Phase()), time.time())
    bench.builds.forget({first.id})
    assert bench.builds.request(wanted)
    bench.builds.queue.claim(first, State.NEW, State.BUILDING)
    bench.backend.gate.set()
    bench.until(lambda: not bench.builder._heartbeat._held, lambda: None)
    assert bench.names("builds/building") == {f"{first.id}@1.json"}
    assert bench.names("builds/done") == set()
