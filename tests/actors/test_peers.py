"""Several executors on one spool. Each looks at a part of the waiting entries, and none is left unread by all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from spoold.actors.executor import Executor, finding, peers
from spoold.actors.executor.peers import Peers
from spoold.config import ExecutorSettings, LeaseSettings
from spoold.host import attributes
from spoold.host.clock import Clock
from spoold.model.ids import Hint
from tests.actors.bench import Bench, settings_for
from tests.names import named

LEASE = LeaseSettings(renewal=5.0, limit=30.0)
IDS = [f"job-{number}" for number in range(300)]


class Hand(Clock):
    """A clock whose monotonic time the test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(tmp_path: Path) -> Hand:
    return Hand(str(tmp_path / "probe"))


def here(directory: Path, *names: str) -> None:
    for name in names:
        (directory / f"executor-{name}.host").write_text("")


def looked(directory: Path, name: str, clock: Clock) -> Peers:
    made = Peers(str(directory), f"executor-{name}", LEASE, clock)
    made.look()
    return made


def test_each_of_several_is_the_first_for_a_part_of_all_ids(tmp_path: Path, clock: Hand) -> None:
    here(tmp_path, "a", "b", "c")
    (tmp_path / "executor-a.host.probe").write_text("")
    (tmp_path / "health.host").write_text("")
    three = [looked(tmp_path, name, clock) for name in "abc"]
    for id_ in IDS:
        assert sorted(each.rank(id_) for each in three) == [0, 1, 2]
    for each in three:
        assert 50 < sum(each.rank(id_) == 0 for id_ in IDS) < 150


def gone(directory: Path) -> None:
    for path in directory.glob("executor-*.host"):
        path.unlink()


def test_one_alone_is_the_first_for_all(tmp_path: Path, clock: Hand) -> None:
    alone = looked(tmp_path, "a", clock)
    assert {alone.rank(id_) for id_ in IDS} == {0}


def test_what_was_one_s_that_is_gone_is_the_others(tmp_path: Path, clock: Hand) -> None:
    here(tmp_path, "a", "b")
    one = looked(tmp_path, "a", clock)
    assert {one.rank(id_) for id_ in IDS} == {0, 1}
    (tmp_path / "executor-b.host").unlink()
    assert not one.look(), "it doesn't look at every call"
    clock.now += peers.LOOK
    assert one.look()
    assert {one.rank(id_) for id_ in IDS} == {0}


def test_one_that_renews_its_presence_no_more_counts_no_more(tmp_path: Path, clock: Hand) -> None:
    """The file system's clock doesn't matter here, because nobody relies on it alone."""
    here(tmp_path, "a", "ahead", "lives")
    os.utime(tmp_path / "executor-ahead.host", (1e10, 1e10))
    one = looked(tmp_path, "a", clock)
    assert one.count == 3
    for number in range(20):
        clock.now += peers.LOOK
        os.utime(tmp_path / "executor-lives.host", (number, number))
        one.look()
    assert one.count == 2


# -- Executors


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, settings_for(tmp_path, executor=ExecutorSettings(slots=1)))
    made.drop("warm")
    made.wait_for("warm")
    here(tmp_path / "tmp", "default", "other")
    yield made
    made.close()


def other_executor(bench: Bench) -> Executor:
    settings = msgspec.structs.replace(bench.settings, executor=ExecutorSettings(slots=1, name="other"))
    made = Executor(settings, lambda _: bench.sandbox)
    made.start()
    return made


def look(*executors: Executor) -> None:
    for executor in executors:
        executor._finder._peers._looked = float("-inf")
        executor.step([])


def read_by(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which each later read of the executor in ``new/`` is added."""
    read: list[str] = []
    plain = executor._spool.read

    def noting(state: object, entry: object) -> object:
        if state == "new":
            read.append(entry.id)  # type: ignore[attr-defined]
        return plain(state, entry)  # type: ignore[arg-type]

    monkeypatch.setattr(executor._spool, "read", noting)
    return read


def drop(bench: Bench, ids: list[str]) -> list[Hint]:
    for id_ in ids:
        bench.drop(id_)
    return [Hint("new", named(id_)) for id_ in ids]


@pytest.mark.parametrize("by", ["hints", "scan"])
def test_two_share_what_is_to_be_read(bench: Bench, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    monkeypatch.setattr(finding, "GRACE", 1000.0)
    monkeypatch.setattr(finding, "LONGEST_GRACE", 1000.0)
    other = other_executor(bench)
    two = [bench.executor, other]
    look(*two)
    both = [read_by(executor, monkeypatch) for executor in two]
    hints = drop(bench, IDS[:30])
    for executor in two:
        executor.step([hint for hint in hints if executor.wants(hint)] if by == "hints" else None)
    bench.until(lambda: bench.has("done", f"{IDS[0]}.response.json"), lambda: [each.step([]) for each in two])
    bench.until(lambda: all(bench.has("done", f"{id_}.response.json") for id_ in IDS[:30]), lambda: look(*two))
    other.stop()
    assert sorted(both[0] + both[1]) == sorted(IDS[:30])
    assert min(len(each) for each in both) > 5
    gone(bench.root / "tmp")
    bench.assert_nothing_is_left()


def test_of_many_hints_at_once_only_few_are_for_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "GRACE", 0.0)
    executor = bench.executor
    look(executor)
    hints = [Hint("new", named(id_)) for id_ in IDS]
    theirs = [hint for hint, id_ in zip(hints, IDS, strict=True) if executor._finder._peers.rank(id_)]
    for _ in range(3):
        wanted = [hint for hint in hints if executor.wants(hint)]
        assert len(set(theirs) & set(wanted)) in (finding.FEW, finding.FEW + 1)
        executor.step(wanted)  # there is nothing by these names
        bench.until(lambda: not executor._seen._left_to_others, lambda: executor.step([]))


def test_hints_wait_longer_for_others_and_while_there_is_work(bench: Bench) -> None:
    executor = bench.executor
    look(executor)
    both = 2 * finding.PATIENCE
    assert (executor.patience(True), executor.patience(False)) == (finding.QUICKLY, both)
    bench.sandbox.gate.clear()
    own = [id_ for id_ in IDS if not executor._finder._peers.rank(id_)][:3]
    hints = drop(bench, own)
    bench.until(lambda: executor._line.length == 2, lambda: executor.step(hints))
    assert (executor.patience(True), executor.patience(False)) == (both, both)
    bench.sandbox.gate.set()
    gone(bench.root / "tmp")
    bench.wait_for(*own)


@pytest.mark.parametrize("by", ["hints", "scan"])
def test_what_another_does_not_come_to_is_taken(bench: Bench, by: str) -> None:
    """The other executor is present and does nothing. More entries wait than one step looks at."""
    look(bench.executor)
    assert bench.executor._finder._peers.count == 2
    hints = drop(bench, IDS[:30])
    if by == "hints":
        bench.executor.step([hint for hint in hints if bench.executor.wants(hint)])
    bench.wait_for(*IDS[:30])
    gone(bench.root / "tmp")
    bench.assert_nothing_is_left()


def test_what_another_had_time_for_is_taken_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "GRACE", 1000.0)
    monkeypatch.setattr(finding, "LONGEST_GRACE", 1000.0)
    look(bench.executor)
    old = next(id_ for id_ in IDS if bench.executor._finder._peers.rank(id_))
    drop(bench, [old])
    path = bench.root / "new" / named(old)
    since = path.stat().st_mtime - 1010.0
    os.utime(path, (since, since))
    bench.executor.step()
    bench.wait_for(old)
    gone(bench.root / "tmp")
    bench.assert_nothing_is_left()


def test_of_anothers_only_few_of_each_owner_are_looked_at(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hints of further entries are ignored, except the first one: it makes an idle executor look for them."""
    monkeypatch.setattr(finding, "GRACE", 1000.0)
    monkeypatch.setattr(finding, "LONGEST_GRACE", 1000.0)
    monkeypatch.setattr(finding, "AGAIN", 1000.0)
    executor = bench.executor
    look(executor)
    bench.sandbox.gate.clear()
    theirs = [id_ for id_ in IDS if executor._finder._peers.rank(id_)]
    wanted = []
    for id_ in theirs[:30]:
        hint = Hint("new", named(id_))
        if executor.wants(hint):
            wanted.append(id_)
            executor.step([hint])
    assert wanted == theirs[: finding.FEW + 1]
    bench.put(1002, stranger := next(id_ for id_ in theirs[30:]))
    assert executor.wants(Hint("new", f"{stranger}@1002-1.json")), "one owner's many entries hide nobody else's"
    assert executor.wants(Hint("new", named(next(id_ for id_ in IDS if id_ not in theirs))))


def test_a_scan_does_not_even_look_at_the_many_of_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "GRACE", 1000.0)
    monkeypatch.setattr(finding, "LONGEST_GRACE", 1000.0)
    monkeypatch.setattr(finding, "LOOK", 1)
    executor = bench.executor
    look(executor)
    bench.sandbox.gate.clear()
    drop(bench, IDS[:60])
    theirs = [named(id_) for id_ in IDS[:60] if executor._finder._peers.rank(id_)]
    looked_at: list[str] = []
    plain = attributes.mtime_and_links

    def noting(path: str | os.PathLike[str]) -> tuple[float, int] | None:
        looked_at.append(os.path.basename(path))
        return plain(path)

    monkeypatch.setattr(attributes, "mtime_and_links", noting)
    executor.step()
    bench.until(lambda: executor._finder._scan is None, lambda: executor.step([]))
    assert len(theirs) > 20
    assert len(set(theirs) & set(looked_at)) == finding.FEW
