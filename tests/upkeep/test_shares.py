"""Owners' files are counted by the blocks of the disk, and nobody gets more than a share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from spoold.config import Settings, ShareSettings
from spoold.host import machine
from spoold.host.clock import Clock
from spoold.model.retention import Amount
from spoold.model.states import State
from spoold.model.submission import Origin, Request
from spoold.spool import layout
from spoold.spool.builds import BuildStore
from spoold.spool.store import Spool
from spoold.upkeep import counting, holdings
from spoold.upkeep.counting import Counter
from spoold.upkeep.shares import Holding, Shares, share_of
from tests.actors.bench import settings_for

ONE, OTHER = 64_301, 64_302
MIB = 1 << 20


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    layout.create(str(tmp_path))
    return settings_for(tmp_path)


@pytest.fixture
def spool(settings: Settings) -> Spool:
    return Spool(settings, "test")


def origin(uid: int, sha256: str = "0" * 64) -> Origin:
    return Origin(uid=uid, gid=uid, sha256=sha256, arrival=0.0)


def request(size: int) -> Request:
    return msgspec.convert({"files": [{"name": "run.sh", "content": "x" * size}]}, Request)


def count(settings: Settings, spool: Spool, person: Callable[[int], int] = lambda uid: uid) -> dict[int, Holding]:
    """Count like health, and return what others then read."""
    Counter(settings, spool, person).step(1000.0)
    read = Shares(settings, spool)
    read.look()
    return read._had


def shares_of(settings: Settings, spool: Spool, **bounds: int) -> Shares:
    """Return shares with these bounds, after a look at a count."""
    made = Shares(msgspec.structs.replace(settings, share=ShareSettings(**bounds)), spool)
    Counter(settings, spool).step(1000.0)
    made.look()
    return made


def blocks(*paths: Path) -> int:
    return sum(os.lstat(path).st_blocks * 512 for path in paths)


def test_all_that_an_owner_has_is_counted(settings: Settings, spool: Spool, tmp_path: Path) -> None:
    spool.accept("waits", request(50_000), origin(ONE))
    spool.accept("held", request(10), origin(ONE))
    held = next(entry for entry in spool.queue.entries(State.NEW) if entry.id == "held")
    spool.queue.claim(held, State.NEW, State.RUNNING)
    spool.set_aside("bad", b"y" * 9000, "not JSON", suffix=f"@{ONE}-0123abcd")
    spool.refuse_reuse("used", "used", origin(ONE))
    spool.accept("another", request(10), origin(OTHER))
    builds = BuildStore(settings)
    builds.uses.note("f" * 64, ONE)
    Path(builds.result_path("f" * 64)).write_bytes(b"z" * 70_000)
    expression = Path(builds.queue.path("done", f"{'f' * 64}.json"))
    expression.write_bytes(b"{" * 90_000)
    had = count(settings, spool)
    mine = [path for path in tmp_path.rglob("*") if path.name.startswith(("waits@", "held@", "bad@", "used@", "f"))]
    mine = [path for path in mine if path.parent.name != "used"]
    side_files = [tmp_path / "progress" / f"{id_}.json" for id_ in ("waits", "held")]
    assert (had[ONE].entries, had[ONE].bytes) == (len(mine) - 1, blocks(*mine, *side_files)), "a build is one entry"
    assert had[ONE].kept == blocks(*(path for path in mine if path.parent.name not in ("new", "running")))
    assert len(mine) == 7
    assert had[OTHER].entries == 1


def test_no_entry_is_read_to_tell_whose_it_is(settings: Settings, spool: Spool, tmp_path: Path) -> None:
    """The name tells the owner. So a count costs the same whatever an entry holds, and works for damaged entries."""
    for state in ("new", "building", "running"):
        for uid in (ONE, OTHER):
            (tmp_path / state / f"{state}-{uid}@{uid}-1.json").write_bytes(b"{")
    had = count(settings, spool)
    assert (had[ONE].entries, had[OTHER].entries) == (3, 3)


@pytest.mark.skipif(os.geteuid() != 0, reason="answers are given to their owners")
def test_an_answer_counts_by_what_it_takes_of_the_disk(settings: Settings, spool: Spool, tmp_path: Path) -> None:
    """Its owner could make the file longer without using a byte of the disk."""
    spool.refuse("a", "no", origin(ONE))
    before = count(settings, spool)[ONE]
    os.truncate(tmp_path / "done" / "a.response.json", 17 << 30)
    assert count(settings, spool)[ONE] == before
    assert before.bytes < MIB


def test_what_is_added_counts_at_once_and_once(settings: Settings, spool: Spool) -> None:
    shares = shares_of(settings, spool, bytes=MIB, entries=3)
    assert shares.has_room(ONE, MIB // 2)
    spool.accept("a", request(MIB // 2), origin(ONE))
    shares.add(ONE, MIB // 2)
    assert not shares.has_room(ONE, MIB // 2)
    assert shares.has_room(ONE, MIB // 8)
    assert shares.has_room(OTHER, MIB // 2)
    shares._added[0] = shares._added[0]._replace(time=0.0)  # long ago
    shares._looked = 0.0
    assert count(settings, spool)[ONE].entries == 1
    shares.look()
    had = shares._had[ONE]
    assert had.entries == 1
    assert MIB // 2 <= had.bytes < MIB * 3 // 4
    for number in range(2):
        assert shares.has_room(ONE)
        shares.add(ONE, number)
    assert not shares.has_room(ONE)


def test_what_was_added_during_a_count_is_not_forgotten(settings: Settings, spool: Spool) -> None:
    shares = shares_of(settings, spool, entries=1)
    counter = Counter(settings, spool)
    counter.step(1000.0)
    shares.add(OTHER, 1)
    shares._looked = 0.0
    shares.look()
    assert not shares.has_room(OTHER)


def test_without_a_count_there_is_no_bound(settings: Settings, spool: Spool) -> None:
    shares = Shares(msgspec.structs.replace(settings, share=ShareSettings(bytes=0, entries=2)), spool)
    assert not shares.has_room(ONE, 1), "a size that could never fit is refused"
    shares = Shares(msgspec.structs.replace(settings, share=ShareSettings(entries=2)), spool)
    for _ in range(5):
        shares.add(ONE, 1)
    assert shares.has_room(ONE, 1)


def test_uids_of_one_person_are_one_owner(settings: Settings, spool: Spool) -> None:
    def person(uid: int) -> int:
        return min(uid, ONE)

    spool.accept("a", request(1), origin(ONE))
    spool.accept("b", request(1), origin(OTHER))
    assert count(settings, spool, person)[ONE].entries == 2
    shares = Shares(msgspec.structs.replace(settings, share=ShareSettings(entries=2)), spool, person)
    shares.look()
    assert not shares.has_room(OTHER)


def test_a_count_goes_on_where_it_was(settings: Settings, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "PART", 1)
    for number in range(20):
        spool.accept(f"a{number}", request(1), origin(ONE))
    counter, shares = Counter(settings, spool), Shares(settings, spool)
    steps = 0
    while not shares._had:
        counter.step(0.0)
        shares._looked = 0.0
        shares.look()
        steps += 1
    assert steps >= 20
    assert shares._had[ONE].entries == 20


def be_of(spool: Spool, moment: float) -> None:
    """Set the times of all directories to one moment."""
    for place in counting.PLACES:
        os.utime(spool.queue.path(place), (moment, moment))


def test_what_comes_within_a_tick_of_the_clock_is_counted(
    settings: Settings, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directories already had these times when the last count began."""
    monkeypatch.setattr(counting, "SOONEST", 0.0)
    monkeypatch.setattr(counting, "REST", 0.0)
    be_of(spool, 1.0)
    counter = Counter(msgspec.structs.replace(settings, share=ShareSettings(entries=1)), spool)
    now = spool.clock.file_system()
    monkeypatch.setattr(Clock, "file_system", lambda _: now)
    for id_ in "ab":
        spool.accept(id_, request(1), origin(ONE))
        be_of(spool, now)
        counter.step(1000.0)
    shares = Shares(settings, spool)
    shares.look()
    assert shares._had[ONE].entries == 2


def test_nothing_is_counted_where_nothing_changed(
    settings: Settings, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "SOONEST", 0.0)
    monkeypatch.setattr(counting, "REST", 0.0)
    spool.accept("a", request(1), origin(ONE))
    be_of(spool, 1.0)
    counter = Counter(msgspec.structs.replace(settings, share=ShareSettings(entries=1)), spool)
    counter.step(1000.0)
    with monkeypatch.context() as patched:
        patched.setattr(counting, "everything", lambda *_: pytest.fail("nothing was added"))
        counter.step(1000.0)
    spool.accept("b", request(1), origin(ONE))
    counter.step(1000.0)
    shares = Shares(settings, spool)
    shares.look()
    assert shares._had[ONE].entries == 2


def test_who_is_far_from_the_end_of_a_share_is_counted_later(
    settings: Settings, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 100 * MIB  # set here, because others use the tests' disk too
    monkeypatch.setattr(machine, "room", lambda _: machine.Room(free, 0.5, None))
    counter = Counter(msgspec.structs.replace(settings, share=ShareSettings(bytes=MIB, entries=100)), spool)
    counter.step(1000.0)
    for id_, size in {"a": 1, "b": MIB // 2}.items():
        spool.accept(id_, request(size), origin(ONE))
        free -= size
        counter._ended = spool.clock.monotonic() - counting.SOONEST - 1  # as if that much time had passed
        counter._took = 0.0
        counter.step(1000.0)
    shares = Shares(settings, spool)
    shares.look()
    assert shares._had[ONE].entries == 2, "the disk has lost much since, so it was counted"


def test_what_waits_keeps_itself_from_nothing(settings: Settings, spool: Spool) -> None:
    """Only finished entries hold an owner's waiting ones back. Otherwise these could never begin, nor make room."""
    for number in range(3):
        spool.accept(f"a{number}", request(MIB), origin(ONE))
    shares = shares_of(settings, spool, bytes=MIB, entries=1)
    assert not shares.has_room(ONE)
    assert shares.may_begin(ONE)
    shares.add(ONE, 2 * MIB)
    assert not shares.may_begin(ONE)
    assert shares.may_begin(OTHER)


def test_the_default_is_a_quarter_of_the_disk(settings: Settings) -> None:
    bytes_, inodes = machine.capacity(settings.spool.path)
    share = share_of(settings)
    assert share.bytes == bytes_ / 4
    assert share.entries == inodes / 16
    assert share_of(msgspec.structs.replace(settings, share=ShareSettings(bytes=0, entries=7))) == Amount(7, 0)
