"""However many entries wait, an executor begins at once, remembers few of them, and forgets none for good."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold.actors.executor import backlog as backlogs
from spoold.actors.executor import finding, ready
from spoold.actors.executor.backlog import Backlog
from spoold.actors.executor.finding import Finder
from spoold.actors.executor.ready import Place
from spoold.config import ExecutorSettings
from spoold.model import turns
from spoold.model.ids import Entry, Hint
from spoold.model.states import State
from spoold.model.turns import BestTurns
from tests.actors.bench import Bench, settings_for
from tests.names import named

ALICE, BOB = 1001, 1002


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make room for four entries in line and for eight names."""
    monkeypatch.setattr(turns, "LEAST", 2)
    monkeypatch.setattr(ready, "MOST", 4)
    monkeypatch.setattr(backlogs, "MOST", 8)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Yield a bench with one slot, which is in use until the gate opens."""
    made = Bench(tmp_path, settings_for(tmp_path, executor=ExecutorSettings(slots=1)))
    made.drop("warm")
    made.wait_for("warm")
    made.sandbox.gate.clear()
    made.drop("first")
    made.until(lambda: len(made.sandbox.jobs) == 2, made.executor.step)
    yield made
    made.close()


def remembered(bench: Bench) -> int:
    """Return how many entries the executor knows of."""
    executor = bench.executor
    places = executor._line, executor._seen, executor._finder.backlog
    return sum(len(each.names(state)) for each in places for state in ready.WAITING)


def drop_later(bench: Bench, id_: str) -> None:
    """Drop a submission later than all earlier ones by the file system's clock."""
    bench.wait_for_a_tick()
    bench.drop(id_)


def begin_anew(bench: Bench) -> None:
    """Start another executor, which finds the waiting entries by a scan."""
    bench.sandbox.gate.set()
    bench.executor.stop()
    bench.sandbox.gate.clear()
    bench.executor = bench.new_executor()


def ran(bench: Bench) -> list[str]:
    return [job.submission_id for job in bench.sandbox.jobs[2:]]


@pytest.mark.parametrize("told", [True, False])
def test_much_that_waits_runs_in_the_order_in_which_it_came(bench: Bench, told: bool) -> None:
    ids = [f"a{number}" for number in range(40)]
    for id_ in ids:
        drop_later(bench, id_)
        if told:
            bench.executor.step([Hint("new", named(id_))])
    if not told:
        begin_anew(bench)
    bench.executor.step()
    while bench.executor._seen:
        bench.executor.step([])
    assert remembered(bench) <= 4 + 8 + 2  # a bound may be passed by an eighth
    bench.sandbox.gate.set()
    bench.wait_for(*ids)
    assert ran(bench) == ids
    bench.assert_nothing_is_left()


def test_one_of_a_higher_priority_goes_before_much_that_came_earlier(bench: Bench) -> None:
    ids = [f"a{number}" for number in range(30)]
    for id_ in ids:
        drop_later(bench, id_)
        bench.executor.step([Hint("new", named(id_))])
    bench.drop("urgent", priority=1)
    bench.executor.step([Hint("new", named("urgent"))])
    bench.sandbox.gate.set()
    bench.wait_for(*ids, "urgent")
    assert ran(bench) == ["urgent", *ids]


def test_work_begins_before_the_scan_has_found_all(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        bench.drop(f"a{number}")
    begin_anew(bench)
    for name in ("FIRST", "PART"):
        monkeypatch.setattr(finding, name, 0.0)
    monkeypatch.setattr(finding, "LOOK", 5)
    monkeypatch.setattr(finding, "REST", 1e9)
    bench.until(lambda: ran(bench), bench.executor.step)
    for _ in range(5):
        bench.executor.step()
    assert 0 < remembered(bench) < 15, "the scan rests while there is work"
    bench.sandbox.gate.set()
    bench.wait_for(*(f"a{number}" for number in range(20)))
    bench.assert_nothing_is_left()


def test_a_scan_that_rests_delays_nothing_that_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "QUICK", -1.0)
    monkeypatch.setattr(finding, "LONG_REST", 1e9)
    begin_anew(bench)
    bench.executor.step()
    bench.sandbox.gate.set()
    bench.drop("unseen")
    bench.executor.step()
    assert remembered(bench) == 0
    bench.drop("told")
    bench.until(
        lambda: bench.has("done", "told.response.json"), lambda: bench.executor.step([Hint("new", named("told"))])
    )
    assert not bench.has("done", "unseen.response.json")


def test_an_error_of_the_disk_ends_a_scan_and_not_the_next(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.drop("a")
    with monkeypatch.context() as patched:
        patched.setattr(Finder, "_find", lambda *_: os.stat("/proc/self/mem/none"))
        with pytest.raises(OSError, match="none"):
            bench.executor.step()
    bench.sandbox.gate.set()
    bench.wait_for("a")


def test_a_second_name_that_a_loss_of_power_left_is_not_run(bench: Bench) -> None:
    bench.sandbox.gate.set()
    bench.wait_for("first")
    os.link(bench.root / "done" / "first.json", bench.root / "new" / named("first"))
    begin_anew(bench)
    bench.executor.step()
    assert (bench.names("new"), bench.has("done", "first.json")) == (set(), True)
    assert ran(bench) == []


def backlog_of(*names: str) -> Backlog:
    made = Backlog(lambda entry: entry.owner or 0)
    made.begin()
    for number in range(len(names)):
        since = number * 7 % len(names)  # no length is a multiple of 7, so each number comes once
        made.add(State.NEW, Entry(names[since], 1, ALICE), float(since))
    made.end(whole=True)
    return made


def fed(backlog: Backlog, most: int) -> list[str]:
    found: list[Place] = []
    backlog.feed(lambda *_: len(found) < most, found.append)
    return [place.entry.id for place in found]


def test_of_very_much_the_oldest_are_remembered() -> None:
    names = [f"a{number:02}" for number in range(50)]
    backlog = backlog_of(*names)
    assert not backlog.is_low
    assert fed(backlog, 8) == names[:8]
    assert backlog.is_low, "more entries wait than it remembers"


def test_of_whom_enough_is_remembered_no_more_is_looked_for() -> None:
    backlog = backlog_of(*(f"a{number}" for number in range(20)))
    backlog.begin()
    assert not backlog.needs(ALICE)
    assert backlog.needs(BOB)
    backlog.end(whole=True)
    fed(backlog, 8)
    backlog.begin()
    assert backlog.needs(ALICE)
    backlog.end(whole=False)
    assert backlog.is_low, "the scan did not reach the end"


def test_turns_with_little_room_keep_the_first() -> None:
    best: BestTurns[int] = BestTurns(20)
    things = [(number * 7 % 3, float(number * 31 % 50)) for number in range(300)]
    gone = [thing for n, (priority, since) in enumerate(things) for _, thing in best.admit(ALICE, n, priority, since)]
    order = sorted(range(300), key=lambda n: (-things[n][0], things[n][1], n))
    kept = [best.take_from(ALICE) for _ in range(len(best))]
    assert kept[:20] == order[:20]
    assert sorted(kept + gone) == list(range(300))
    assert best.has_room(ALICE, since=1e9)
