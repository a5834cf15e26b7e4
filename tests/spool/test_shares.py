"""What owners have is counted by the blocks of the disk, and nobody is given more than a share."""

from __future__ import annotations

import math
import os
from pathlib import Path

import msgspec
import pytest

from spoold.config import Settings, Share
from spoold.host import fsops, machine
from spoold.model.retention import Amount
from spoold.model.submission import Origin, Request
from spoold.spool import holdings, layout
from spoold.spool.builds import BuildStore
from spoold.spool.shares import Shares, share_of
from spoold.spool.store import Spool
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


def counted(shares: Shares) -> dict[int, Amount]:
    shares.recount()
    for _ in range(1000):
        shares.look(1.0)
        if shares._count is None and not shares._is_old:
            return shares.had()
        shares._ended = -math.inf
    raise AssertionError("it never ends")


def blocks(*paths: Path) -> int:
    return sum(os.lstat(path).st_blocks * 512 for path in paths)


def test_all_that_an_owner_has_is_counted(settings: Settings, spool: Spool, tmp_path: Path) -> None:
    spool.accept("waits", request(50_000), origin(ONE))
    spool.accept("held", request(10), origin(ONE))
    held = next(entry for entry in spool.queue.entries("new") if entry.id == "held")
    spool.queue.claim(held, "new", "running")
    spool.set_aside("bad", b"y" * 9000, "not JSON", suffix=f"@{ONE}-0123abcd")
    spool.refuse_reuse("used", "used", origin(ONE))
    spool.accept("another", request(10), origin(OTHER))
    builds = BuildStore(settings)
    builds.note_use("f" * 64, ONE)
    Path(builds.result_path("f" * 64)).write_bytes(b"z" * 70_000)
    had = counted(Shares(settings, spool))
    mine = [path for path in tmp_path.rglob("*") if path.name.startswith(("waits@", "held@", "bad@", "used@", "f"))]
    mine = [path for path in mine if path.parent.name != "used"]
    assert had[ONE] == Amount(len(mine), blocks(*mine))
    assert len(mine) == 6
    assert had[OTHER].entries == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="answers are given to their owners")
def test_an_answer_counts_by_what_it_takes_of_the_disk(settings: Settings, spool: Spool, tmp_path: Path) -> None:
    """Who has it could make it as long as he likes without a byte on the disk."""
    spool.refuse("a", "no", origin(ONE))
    before = counted(Shares(settings, spool))[ONE]
    os.truncate(tmp_path / "done" / "a.response.json", 17 << 30)
    assert counted(Shares(settings, spool))[ONE] == before
    assert before.bytes < MIB


def test_what_is_added_counts_at_once_and_once(settings: Settings, spool: Spool) -> None:
    shares = Shares(msgspec.structs.replace(settings, share=Share(bytes=MIB, entries=3)), spool)
    counted(shares)
    assert shares.has_room(ONE, MIB // 2)
    spool.accept("a", request(MIB // 2), origin(ONE))
    shares.add(ONE, MIB // 2)
    assert not shares.has_room(ONE, MIB // 2)
    assert shares.has_room(ONE, MIB // 8)
    assert shares.has_room(OTHER, MIB // 2)
    had = counted(shares)[ONE]
    assert had.entries == 1
    assert MIB // 2 <= had.bytes < MIB * 3 // 4
    for number in range(2):
        assert shares.has_room(ONE)
        shares.add(ONE, number)
    assert not shares.has_room(ONE)


def test_uids_of_one_person_are_one_owner(settings: Settings, spool: Spool) -> None:
    shares = Shares(msgspec.structs.replace(settings, share=Share(entries=2)), spool, lambda uid: min(uid, ONE))
    spool.accept("a", request(1), origin(ONE))
    spool.accept("b", request(1), origin(OTHER))
    assert counted(shares)[ONE].entries == 2
    assert not shares.has_room(OTHER)


def test_a_count_goes_on_where_it_was(settings: Settings, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "PART", 1)
    for number in range(20):
        spool.accept(f"a{number}", request(1), origin(ONE))
    shares = Shares(settings, spool)
    looks = 0
    while not shares.had():
        shares.look(0.0)
        looks += 1
    assert looks >= 20
    assert shares.had()[ONE].entries == 20


def test_what_was_added_during_a_count_is_not_forgotten(
    settings: Settings, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings, "PART", 1)
    for number in range(5):
        spool.accept(f"a{number}", request(1), origin(ONE))
    shares = Shares(settings, spool)
    shares.look(0.0)
    shares.add(OTHER, 1)
    while shares._count is not None:
        shares.look(0.0)
    assert shares.had()[OTHER].entries == 1


def test_it_rests_while_nothing_was_added(settings: Settings, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = Shares(settings, spool)
    counted(shares)
    shares._ended = -math.inf
    monkeypatch.setattr(fsops, "facts", lambda _: pytest.fail("nothing was added"))
    spool.accept("a", request(1), origin(ONE))  # by another process, which is nothing that this one has to count now
    shares.look(1.0)


def test_who_is_far_from_the_end_of_a_share_is_not_counted_after_each_addition(
    settings: Settings, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = Shares(msgspec.structs.replace(settings, share=Share(bytes=MIB, entries=100)), spool)
    counted(shares)
    with monkeypatch.context() as patched:
        patched.setattr("spoold.spool.shares.SOONEST", 0.0)
        patched.setattr("spoold.spool.shares.REST", 0.0)
        shares.add(ONE, 1)
        shares.look(1.0)
        assert shares.had()[ONE].entries == 1, "as it was added, though there is none"
        shares.add(ONE, MIB // 2)
        shares.look(1.0)
        assert ONE not in shares.had(), "it was counted"


def test_what_waits_keeps_itself_from_nothing(settings: Settings, spool: Spool) -> None:
    """Only what is kept has an owner's entries wait: else these could never begin, nor make room."""
    shares = Shares(msgspec.structs.replace(settings, share=Share(bytes=MIB, entries=1)), spool)
    for number in range(3):
        spool.accept(f"a{number}", request(MIB), origin(ONE))
    counted(shares)
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
    assert share_of(msgspec.structs.replace(settings, share=Share(bytes=0, entries=7))) == Amount(7, 0)
