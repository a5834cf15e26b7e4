"""Builds of one client do not delay those of others, and a waiting build holds no place."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spoold.actors.builder.lanes import Lanes
from spoold.config import BuilderSettings
from spoold.host.clock import Clock
from spoold.model.ids import Entry
from spoold.model.states import State
from spoold.model.submission import Dependencies
from tests.actors.bench import Bench, settings_for
from tests.standins import store_path

HONEST, HOSTILE = 1001, 1002


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, settings_for(tmp_path, builder=BuilderSettings(parallel=2, slow=2, patience=0.2)))
    yield made
    made.close()


@pytest.fixture
def one_place(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, settings_for(tmp_path, builder=BuilderSettings(parallel=1, slow=0)))
    yield made
    made.close()


def file(bench: Bench, build_id: str, client: int, expression: str = "") -> None:
    bench.builds.uses.note(build_id, client)
    bench.builds.request(Dependencies(build_id=build_id, expression=expression, nixpkgs=store_path("nixpkgs")))


def names_of(bench: Bench) -> set[str]:
    return bench.names("builds/new") | bench.names("builds/building")


def test_hanging_builds_delay_nobody_else(bench: Bench) -> None:
    for number in range(20):
        file(bench, f"hostile-{number}", HOSTILE, "hangs")
    bench.until(lambda: len(bench.names("builds/building")) == 2, bench.builder.step)
    for number in range(5):
        file(bench, f"honest-{number}", HONEST)
    bench.until(lambda: len(bench.builds.finished()) == 5, bench.builder.step)
    tried = {build_id for build_id in bench.backend.built if build_id.startswith("hostile")}
    assert len(tried) <= 10, "they take turns: few of the twenty that came first were tried before or in between"
    bench.builder.stop()
    assert {f"hostile-{number}.json" for number in range(20)} == names_of(bench), "no build lost, and no attempt"


def test_hanging_builds_of_the_same_client_delay_by_their_trial_only(bench: Bench) -> None:
    for number in range(8):
        file(bench, f"hangs-{number}", HONEST, "hangs")
    file(bench, "quick", HONEST)
    bench.until(lambda: bench.builds.finished() == ["quick"], bench.builder.step)


def test_a_long_build_is_left_alone_while_nobody_waits(bench: Bench, pass_time: Callable[[float], None]) -> None:
    for name in ("a", "b"):
        file(bench, name, HONEST, "hangs")
    bench.until(lambda: len(bench.backend.built) == 2, bench.builder.step)
    pass_time(1000)
    bench.builder.step()
    assert bench.names("builds/building") == {"a@1.json", "b@1.json"}
    assert len(bench.backend.built) == 2


def test_what_was_stopped_is_built_when_the_slow_lane_has_a_place(bench: Bench) -> None:
    bench.backend.gate.clear()
    for name in ("a", "b", "c", "d", "e"):
        file(bench, name, HONEST)
    bench.until(lambda: set(bench.backend.built) == {"a", "b", "c", "d", "e"}, bench.builder.step)
    bench.backend.gate.set()
    bench.until(lambda: len(bench.builds.finished()) == 5, bench.builder.step)
    assert all(bench.builds.result(name).result.shell for name in bench.builds.finished())  # type: ignore[union-attr]


def test_it_is_known_who_asked_before_the_build_begins(bench: Bench) -> None:
    bench.drop("a")
    bench.executor.step()
    (build,) = bench.builds.queue.entries(State.NEW)
    assert bench.builds.uses.askers() == {build.id: {os.getuid()}}


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that makes actors think that time has passed."""
    passed = 0.0

    def more(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    monkeypatch.setattr(Clock, "monotonic", lambda _: time.monotonic() + passed)
    monkeypatch.setattr("spoold.actors.builder.work.BACK_OFF", 1000.0)
    return more


def test_a_build_that_failed_rests_without_a_place(one_place: Bench, pass_time: Callable[[float], None]) -> None:
    one_place.backend.failures = 1
    file(one_place, "fails", HOSTILE)
    one_place.until(lambda: one_place.has("builds/new", "fails@2.json"), one_place.builder.step)
    file(one_place, "honest", HONEST)
    one_place.until(lambda: one_place.builds.finished() == ["honest"], one_place.builder.step)
    one_place.builder.step()
    assert one_place.backend.built == ["fails", "honest"]
    pass_time(1000)
    one_place.until(lambda: len(one_place.builds.finished()) == 2, one_place.builder.step)
    assert one_place.backend.built == ["fails", "honest", "fails"]


def test_a_store_that_is_away_is_not_asked_for_one_build_after_the_other(
    one_place: Bench, pass_time: Callable[[float], None]
) -> None:
    one_place.backend.away = True
    for number in range(20):
        file(one_place, f"build-{number}", HONEST)
    one_place.until(lambda: one_place.backend.built, one_place.builder.step)
    one_place.until(lambda: not one_place.names("builds/building"), one_place.builder.step)
    for _ in range(20):
        one_place.builder.step()
        time.sleep(0.01)
    assert len(one_place.backend.built) == 1
    one_place.backend.away = False
    pass_time(1000)
    one_place.until(lambda: len(one_place.builds.finished()) == 20, one_place.builder.step)


def test_a_build_that_another_builder_took_is_forgotten(one_place: Bench) -> None:
    one_place.backend.gate.clear()
    file(one_place, "a", HONEST)
    file(one_place, "b", HONEST)
    one_place.until(lambda: one_place.names("builds/building"), one_place.builder.step)
    (taken,) = one_place.builds.queue.entries(State.NEW)
    one_place.builds.queue.claim(taken, State.NEW, State.BUILDING)
    one_place.builder.step()
    one_place.backend.gate.set()
    one_place.until(lambda: len(one_place.builds.finished()) == 1, one_place.builder.step)
    one_place.until(lambda: one_place.builder._places.idle, one_place.builder.step)
    assert one_place.names("builds/building") == {f"{taken.id}@1.json"}


# -- the policy alone


def filled(lanes: Lanes, builds: dict[str, int]) -> dict[str, set[int]]:
    """Let builds wait, in this order, for these clients. Return who asked for each."""
    for since, name in enumerate(builds):
        lanes.add(Entry(name, 1), since)
    return {name: {client} for name, client in builds.items()}


def started(lanes: Lanes, askers: dict[str, set[int]], now: float) -> list[str]:
    return [entry.id for entry in lanes.start(askers, now)]


def test_clients_take_turns() -> None:
    lanes = Lanes(BuilderSettings(parallel=1))
    askers = filled(lanes, {"x1": 1, "x2": 1, "x3": 1, "y1": 2, "y2": 2, "z1": 3})
    order = []
    for now in range(6):
        order += started(lanes, askers, now)
        lanes.ended(Entry(order[-1], 1), now + 1)
    assert order == ["x1", "y1", "z1", "x2", "y2", "x3"]
    assert lanes.idle


def test_a_build_comes_in_the_turn_of_whoever_asked_and_is_first() -> None:
    """Otherwise a flooding client could delay others, by asking first for the builds that they need."""
    lanes = Lanes(BuilderSettings(parallel=1))
    askers = filled(lanes, {"x1": 1, "x2": 1, "x3": 1, "wanted": 1})
    askers["wanted"].add(2)
    assert started(lanes, askers, 0) == ["x1"]
    lanes.ended(Entry("x1", 1), 1)
    assert started(lanes, askers, 1) == ["wanted"]


def test_one_client_has_half_of_the_slow_lane() -> None:
    lanes = Lanes(BuilderSettings(parallel=1, slow=2, patience=1))
    askers = filled(lanes, {"x1": 1, "x2": 1, "x3": 1})
    assert started(lanes, askers, 0) == ["x1"]
    assert started(lanes, askers, 2) == ["x2"], "x1 moved to the slow lane"
    assert started(lanes, askers, 4) == []
    assert lanes.stop(4) == [Entry("x2", 1)]
    lanes.add(Entry("x2", 1), 4)
    lanes.ended(Entry("x2", 1), 4)
    assert started(lanes, askers, 4) == ["x3"], "x2 waits for the slow lane"
    askers |= filled(lanes, {"y1": 2})
    assert started(lanes, askers, 6) == []
    assert lanes.stop(6) == [Entry("x3", 1)]
    lanes.add(Entry("x3", 1), 6)
    lanes.ended(Entry("x3", 1), 6)
    assert started(lanes, askers, 6) == ["y1"]
    askers |= filled(lanes, {"y2": 2})
    assert started(lanes, askers, 8) == ["y2"], "y1 has the other half"
    lanes.ended(Entry("x1", 1), 8)
    assert started(lanes, askers, 8) == ["x2"]


def test_no_more_are_stopped_than_wait() -> None:
    lanes = Lanes(BuilderSettings(parallel=3, slow=1, patience=1))
    askers = filled(lanes, {"a": 1, "b": 1, "c": 1})
    assert started(lanes, askers, 0) == ["a", "b", "c"]
    askers |= filled(lanes, {"d": 2, "e": 2})
    assert started(lanes, askers, 0.5) == []
    assert lanes.stop(0.5) == [], "they have not had their time yet"
    assert started(lanes, askers, 2) == ["d"]
    assert lanes.stop(2) == lanes.stop(3) == [Entry("b", 1)]


def test_without_a_slow_lane_each_keeps_its_place() -> None:
    lanes = Lanes(BuilderSettings(parallel=1, slow=0, patience=1))
    askers = filled(lanes, {"a": 1, "b": 2})
    assert started(lanes, askers, 0) == ["a"]
    assert started(lanes, askers, 100) == []
    assert lanes.stop(100) == []
