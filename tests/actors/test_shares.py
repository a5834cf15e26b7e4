"""One owner can use up a share of the spool and no more. Others' files still flow, and others' answers stay."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest

from spoold.actors.executor import building, slots
from spoold.actors.intake import dropbox
from spoold.config import ShareSettings
from spoold.host import persons
from spoold.host.log import Log
from spoold.host.seldom import Seldom
from spoold.model.ids import Hint
from spoold.model.job import BuildResult
from spoold.model.retention import Rules
from spoold.model.short import SHOWN
from spoold.spool import holding
from spoold.upkeep import counting, floor, holdings, retention, shares
from tests.actors.bench import Bench, settings_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
GREEDY, OTHER = 64_401, 64_402
MIB = 1 << 20


@pytest.fixture(autouse=True)
def counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SOONEST", "REST", "LATER", "LONG_REST"):
        monkeypatch.setattr(counting, name, 0.0)
    monkeypatch.setattr(shares, "LOOK", 0.0)
    monkeypatch.setattr(shares, "MARGIN", 0.0)
    monkeypatch.setattr(retention, "HASTE", 0.05)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, settings_for(tmp_path, share=ShareSettings(bytes=MIB, entries=8)))
    take_in(made)
    yield made
    made.close()


def put(bench: Bench, uid: int, *ids: str, size: int = 0, script: str = "echo hi") -> None:
    """Drop files as a user. No actor makes a step."""
    for id_ in ids:
        private = bench.root / "incoming" / f".{id_}"
        private.write_text(json.dumps({"files": [{"name": "run.sh", "content": script + "\n" + "#" * size}]}))
        os.chown(private, uid, uid)
        private.rename(bench.root / "incoming" / f"{id_}.json")


def accepted(bench: Bench) -> set[str]:
    return {name.partition("@")[0] for state in ("new", "building", "running") for name in bench.names(state)}


def answers(bench: Bench) -> set[str]:
    return {name.removesuffix(".response.json") for name in bench.names("done") if name.endswith(".response.json")}


def take_in(bench: Bench) -> None:
    """Let intake and the counter work for a while."""
    for _ in range(5):
        bench.health._counter.step(1000.0)
        while bench.intake.step() == 0.0:
            pass


def end_all(bench: Bench) -> None:
    def go_on() -> None:
        bench.step()
        take_in(bench)

    bench.until(lambda: not accepted(bench), go_on)


@pytest.mark.parametrize(("size", "most"), [(200_000, 5), (10, 8)])
def test_what_is_beyond_a_share_waits_and_others_flow(bench: Bench, size: int, most: int) -> None:
    put(bench, GREEDY, *(f"greedy-{number}" for number in range(20)), size=size)
    take_in(bench)
    taken = [id_ for id_ in accepted(bench) if id_.startswith("greedy")]
    assert most - 1 <= len(taken) <= most
    put(bench, OTHER, "other", size=size)
    take_in(bench)
    assert "other" in accepted(bench)
    assert len(bench.names("incoming")) == 20 - len(taken), "nothing is lost or refused"


def test_all_uids_of_a_range_have_one_share(bench: Bench, tmp_path: Path) -> None:
    ranges = tmp_path / "subuid"
    ranges.write_text(f"{GREEDY}:100000:65536\n")
    bench.close()
    with mock.patch.object(persons, "SUBUID", str(ranges)):
        made = Bench(bench.root, bench.settings)
    try:
        for number in range(20):
            put(made, 100_000 + number, f"greedy-{number}")
        take_in(made)
        put(made, OTHER, "other")
        take_in(made)
        taken = accepted(made)
        assert "other" in taken
        assert 7 <= len(taken) - 1 <= 8
    finally:
        made.close()


def test_it_waits_no_longer_than_until_there_is_room(bench: Bench) -> None:
    ids = [f"greedy-{number}" for number in range(12)]
    put(bench, GREEDY, *ids)
    take_in(bench)
    end_all(bench)
    assert 0 < len(bench.names("incoming")) < 12
    for name in bench.names("done"):
        (bench.root / "done" / name).unlink()  # retention does this in time
    take_in(bench)
    end_all(bench)
    assert not bench.names("incoming")


@pytest.mark.parametrize("data", [b'{"files": 1}', b"{", b"\xff\xfe"])
def test_what_is_refused_counts_as_well(bench: Bench, data: bytes) -> None:
    for number in range(30):
        private = bench.root / "incoming" / f".bad-{number}"
        private.write_bytes(data)
        os.chown(private, GREEDY, GREEDY)
        private.rename(bench.root / "incoming" / f"bad-{number}.json")
    bench.until(lambda: len(answers(bench)) >= 2, lambda: take_in(bench))
    for _ in range(20):
        take_in(bench)
        time.sleep(0.02)
    kept = len(bench.names("done")) / 2 + len(bench.names("quarantine"))
    assert kept <= 8 + 3, "the results of one file may pass the bound"
    put(bench, OTHER, "other")
    bench.until(lambda: "other" in accepted(bench), lambda: take_in(bench))


def test_a_file_larger_than_a_share_is_refused_and_not_kept(bench: Bench) -> None:
    put(bench, GREEDY, "large", size=MIB + 1)
    take_in(bench)
    response = bench.response("large")
    assert response["status"] == "REJECTED"
    assert "one user may have" in response["reason"]
    assert not bench.names("quarantine")


def test_whoever_has_used_up_a_share_holds_no_name_of_anothers(bench: Bench) -> None:
    """The file is removed without an answer, because there is no room for one. The id is free for its user at once."""
    put(bench, GREEDY, *(f"greedy-{number}" for number in range(20)))
    take_in(bench)
    put(bench, GREEDY, f"{OTHER}.next", f"{OTHER}.large")
    take_in(bench)
    assert not {name for name in bench.names("incoming") if name.startswith(f"{OTHER}.")}
    assert not {name for name in bench.names("done") if name.startswith(f"{OTHER}.")}
    put(bench, OTHER, f"{OTHER}.next")
    take_in(bench)
    assert f"{OTHER}.next" in accepted(bench)


def test_a_cancel_needs_no_room(bench: Bench) -> None:
    ids = [f"greedy-{number}" for number in range(12)]
    put(bench, GREEDY, *ids)
    take_in(bench)
    one = min(accepted(bench))
    cancel = bench.root / "incoming" / f"{one}.cancel"
    cancel.write_text(one)
    os.chown(cancel, GREEDY, GREEDY)
    take_in(bench)
    assert bench.response(one)["status"] == "CANCELLED"


def test_it_is_said_once_and_not_for_each_file(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    put(bench, GREEDY, *(f"greedy-{number}" for number in range(200)))
    for _ in range(5):
        take_in(bench)
    said = [record for record in caplog.records if "used up a share" in record.getMessage()]
    assert len(said) == 1


@pytest.mark.usefixtures("paced")
def test_names_beyond_number_are_looked_at_in_parts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many names a user makes, others' files are taken in between."""
    monkeypatch.setattr(dropbox, "PART", 100)
    for number in range(3000):
        path = bench.root / "incoming" / f"many-{number:04}.json"
        path.touch()
        os.chown(path, GREEDY, GREEDY)
    bench.intake.step()
    steps = 0
    put(bench, OTHER, "other")
    while "other" not in accepted(bench):
        bench.intake.step([Hint("incoming", "other.json")] if steps == 0 else [])
        steps += 1
    assert steps <= 3


@pytest.fixture
def disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    everything = ShareSettings(bytes=1 << 40, entries=1 << 40)
    monkeypatch.setattr(slots, "BACK_OFF", 0.05)
    monkeypatch.setattr(holding, "BACK_OFF", 0.05)
    made = Bench(small_disk, settings_for(small_disk, retention=Rules(interval=0.01), share=everything))
    yield made
    made.close()


def test_a_disk_that_one_owner_fills_is_freed_of_that_owners_answers(disk: Bench) -> None:
    """Young answers go too, so that intake can go on. The older ones of the other owner stay."""
    put(disk, OTHER, "other")
    take_in(disk)
    disk.wait_for("other")
    old = time.time() - 30 * 60
    os.utime(disk.root / "done" / "other.json", (old, old))
    ids = [f"greedy-{number}" for number in range(40)]
    for id_ in ids:
        put(disk, GREEDY, id_, script="head -c 200000 /dev/zero")

    def go_on() -> None:
        for step in (lambda: take_in(disk), disk.step, disk.health.step):
            with contextlib.suppress(OSError):  # the disk is full; the daemons' loop would try each step again
                step()

    disk.until(lambda: not disk.names("incoming") and not accepted(disk), go_on)
    disk.health._retention._ended = -1e9
    disk.until(lambda: len(answers(disk)) < 20, go_on)
    assert "other" in answers(disk)


def test_small_files_with_large_answers_wait_as_well(bench: Bench) -> None:
    """Accepted submissions don't begin once their owner's answers have used up the share. Another owner's does."""
    ids = [f"greedy-{number}" for number in range(6)]
    put(bench, GREEDY, *ids, script="head -c 400000 /dev/zero")
    take_in(bench)
    assert len(accepted(bench)) == 6
    bench.until(lambda: len(answers(bench)) >= 2)

    def held() -> bool:
        return bool(bench.executor._held) and not bench.names("running")

    bench.until(held)
    waiting = accepted(bench)
    assert waiting, "there was no room for all of it"
    assert len(answers(bench)) <= 5
    put(bench, OTHER, "other")
    take_in(bench)
    bench.wait_for("other")
    assert accepted(bench) == waiting
    for id_ in answers(bench) - {"other"}:
        for name in (f"{id_}.json", f"{id_}.response.json"):
            (bench.root / "done" / name).unlink()  # retention does this in time

    def go_on() -> None:
        bench.step()
        bench.health._counter.step(1000.0)

    bench.until(lambda: len(accepted(bench)) < len(waiting), go_on)


def side_files(bench: Bench) -> int:
    return sum((bench.root / "progress" / name).stat().st_blocks * 512 for name in bench.names("progress"))


def test_side_files_are_small_and_count(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many submissions wait for one build with a long log, which is not copied for each of them."""
    plain = bench.backend.build
    log = "é" * 20_000

    def talks(*args: Any) -> BuildResult:
        result = plain(*args)
        return msgspec.structs.replace(result, phase=msgspec.structs.replace(result.phase, stderr=log))

    monkeypatch.setattr(bench.backend, "build", talks)
    bench.sandbox.gate.clear()
    put(bench, GREEDY, *(f"greedy-{number}" for number in range(6)))
    take_in(bench)
    bench.until(lambda: len(bench.sandbox.jobs) == 2 and bench.executor._line.length == 4)
    bench.until(lambda: [bench.progress(id_) for id_ in accepted(bench)].count("RUNNING") == 2)
    assert side_files(bench) <= 6 * 4 * shares.BLOCK
    for name in bench.names("progress"):
        phase = json.loads((bench.root / "progress" / name).read_bytes())["dependencies"]
        assert (phase["stderr"], phase["stderr_truncated"]) == ("é" * (SHOWN // 2), True)
    seldom = Seldom(Log("test"), bench.spool.clock)
    counted = [item for item in holdings.items(holdings.everything(bench.spool, seldom)) if item.entry]
    entries = [bench.root / state / name for state in ("new", "building", "running") for name in bench.names(state)]
    assert {item.owner for item in counted} == {GREEDY}
    assert sum(item.size for item in counted) == side_files(bench) + sum(e.stat().st_blocks * 512 for e in entries)
    bench.sandbox.gate.set()
    bench.wait_for(*(f"greedy-{number}" for number in range(6)))
    assert {bench.response(id_)["dependencies"]["stderr"] for id_ in answers(bench)} == {log}


def test_no_side_file_is_written_where_room_is_short(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.backend.gate.clear()
    put(bench, GREEDY, "greedy")
    take_in(bench)
    with monkeypatch.context() as patched:
        patched.setattr(floor.Floor, "reached", lambda _: True)
        bench.until(lambda: bench.names("building"))
        bench.backend.gate.set()
        bench.until(lambda: bench.builds.finished() and not bench.executor._building._waits.builds())
        assert bench.progress("greedy") == "pending"
    bench.wait_for("greedy")


def broken(bench: Bench, uid: int, *ids: str, **limits: object) -> None:
    """Drop submissions that all wait for one build, which fails."""
    for id_ in ids:
        private = bench.root / "incoming" / f".{id_}"
        files = [{"name": "run.sh", "content": "true"}, {"name": "cutor.nix", "content": "broken"}]
        private.write_text(json.dumps({"files": files, "limits": {"dependencies": limits}}))
        os.chown(private, uid, uid)
        private.rename(bench.root / "incoming" / f"{id_}.json")


def count(bench: Bench) -> None:
    bench.step()
    bench.health._counter.step(1000.0)


def go_on(bench: Bench) -> None:
    take_in(bench)
    count(bench)


def use_up(bench: Bench) -> None:
    """Store something of the owner's that takes more than the share."""
    bench.spool.set_aside("kept", b"x" * (MIB + shares.BLOCK), "a test", suffix=f"@{GREEDY}-1")
    bench.executor._shares.add(GREEDY, 0)
    bench.until(lambda: not bench.executor._shares.may_begin(GREEDY), lambda: count(bench))


def make_room(bench: Bench) -> None:
    for path in (bench.root / "quarantine").iterdir():
        path.unlink()


def test_answers_without_a_sandbox_wait_for_room_as_well(bench: Bench) -> None:
    """These are failed builds. Another owner's submission is answered. None loses an attempt, however long it waits."""
    bench.backend.gate.clear()
    ids = [f"greedy-{number}" for number in range(3)]
    broken(bench, GREEDY, *ids)
    take_in(bench)
    bench.until(lambda: len(bench.names("building")) == 3)
    bench.drop_bytes("list", b'{"kind": "list-dependencies"}')
    bench.wait_for("list")
    use_up(bench)
    bench.backend.gate.set()
    bench.until(lambda: len(bench.names("new")) == 3, lambda: count(bench))
    broken(bench, OTHER, "other")
    bench.until(lambda: "other" in answers(bench), lambda: go_on(bench))
    for _ in range(5):
        count(bench)
    assert answers(bench) == {"list", "other"}
    assert {name.rpartition("-")[2] for name in bench.names("new")} == {"1.json"}
    make_room(bench)
    bench.until(lambda: answers(bench) >= set(ids), lambda: count(bench))
    assert {bench.response(id_)["status"] for id_ in ids} == {"DEPENDENCIES_FAILED"}


def test_waits_that_are_over_wait_for_room_as_well(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "ENDS_AGAIN", 0.05)
    bench.backend.gate.clear()
    use_up(bench)
    bench.executor._shares.apply_settings(settings_for(bench.root, share=ShareSettings(bytes=4 * MIB, entries=8)))
    bench.intake._shares.apply_settings(settings_for(bench.root, share=ShareSettings(bytes=4 * MIB, entries=8)))
    broken(bench, GREEDY, "greedy", time=400)
    broken(bench, OTHER, "other", time=500)
    take_in(bench)
    bench.until(lambda: len(bench.names("building")) == 2)
    bench.executor._shares.apply_settings(bench.settings)
    monkeypatch.setattr(bench.executor._spool.clock, "monotonic", lambda: time.monotonic() + 1000)
    bench.wait_for("other")
    for _ in range(20):
        count(bench)
        time.sleep(0.02)
    assert answers(bench) == {"other"}
    make_room(bench)
    bench.until(lambda: "greedy" in answers(bench), lambda: count(bench))
    assert bench.response("greedy")["dependencies"]["outcome"] == "time_limit"


def test_answers_without_a_sandbox_wait_while_the_disk_is_short(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(bench.executor._floor, "reached", lambda: True)
        bench.drop_bytes("list", b'{"kind": "list-dependencies"}')
        for _ in range(10):
            bench.step()
        assert not answers(bench)
    bench.wait_for("list")
