"""Finished submissions are removed in time, in an order that crashes and readers survive. Nothing else is."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest

from spoold.host import fsops
from spoold.host.clock import Clock
from spoold.host.log import Log
from spoold.host.seldom import Seldom
from spoold.model.ids import Hint
from spoold.model.retention import Rules
from spoold.model.states import State
from spoold.model.submission import Origin
from spoold.spool.recovery import publish_committed
from spoold.spool.store import Spool
from spoold.upkeep import holdings
from spoold.upkeep.depth import depths
from spoold.upkeep.holdings import everything, items
from spoold.upkeep.retention import Retention
from tests.actors.bench import Bench, settings_for
from tests.mounts import in_the_way
from tests.names import mine, named, result_named

log = Log("test")
OLD = time.time() - 40 * 86400


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def sweep(bench: Bench, **rules: Any) -> None:
    settings = msgspec.structs.replace(bench.settings, retention=Rules(**rules))
    for _ in Retention(settings, bench.spool, bench.builds).sweep():
        time.sleep(0.001)


def finish(bench: Bench, *ids: str, at: float | None = None) -> None:
    for id_ in ids:
        bench.drop(id_)
    bench.wait_for(*ids)
    bench.until(lambda: not bench.names("tmp"), lambda: None)
    for id_ in ids:
        age(bench, f"{id_}.json", at)


def age(bench: Bench, name: str, at: float | None) -> None:
    if at is not None:
        os.utime(bench.root / "done" / name, (at, at))


def test_the_old_goes_with_all_that_belongs_to_it_and_can_be_submitted_anew(bench: Bench) -> None:
    finish(bench, "old", at=OLD)
    finish(bench, "young")
    bench.spool.refuse_reuse("old", "used", Origin(uid=0, gid=0, sha256="0" * 64, arrival=0))
    age(bench, "old@0-00000000.refused.json", OLD)
    sweep(bench)
    assert bench.names("done") == {"young.json", "young.response.json"}
    finish(bench, "old")
    assert bench.response("old")["status"] == "COMPLETED"


@pytest.mark.parametrize("mode", ["acl", "owner"])
def test_a_refusal_of_a_name_goes_like_any_answer(bench: Bench, tmp_path: Path, mode: str) -> None:
    spool = msgspec.structs.replace(bench.settings.spool, answers=mode)
    writer = Spool(msgspec.structs.replace(bench.settings, spool=spool), "test")
    uid = 64_101 if os.geteuid() == 0 else os.geteuid()
    origin = Origin(uid=uid, gid=uid, sha256="0" * 64, arrival=0)
    for name in ("old (1).json", "young (1).json"):
        writer.refuse_name(name, "no", origin)
        writer.refuse_name(name, "no", msgspec.structs.replace(origin, sha256="1" * 64))
    for name in ("old%20%281%29.refused.json", f"old%20%281%29@{uid}-11111111.refused.json"):
        age(bench, name, OLD)
    (tmp_path / "archive").mkdir()
    sweep(bench, archive=["xargs", "cp", "-t", str(tmp_path / "archive")])
    left = {name for name in bench.names("done") if not name.endswith(".sha256")}
    assert left == {"young%20%281%29.refused.json", f"young%20%281%29@{uid}-11111111.refused.json"}
    assert {name.removesuffix(".sha256") for name in bench.names("done") - left} <= {
        name.removesuffix(".json") for name in left
    }
    assert os.listdir(tmp_path / "archive") != []


def test_number_and_size_take_the_oldest(bench: Bench) -> None:
    names = [f"a{number}" for number in range(4)]
    finish(bench, *names)
    for number, name in enumerate(names):
        age(bench, f"{name}.json", time.time() - 7200 - 120 * number)
    sweep(bench, max_count=3)
    assert bench.names("done") == {f"{name}{end}" for name in names[:3] for end in (".json", ".response.json")}
    size = sum(os.stat(bench.root / "done" / f"a0{end}").st_blocks * 512 for end in (".json", ".response.json"))
    sweep(bench, max_size=size + size // 2)
    assert bench.names("done") == {"a0.json", "a0.response.json"}
    age(bench, "a0.json", time.time() - 3000)
    sweep(bench, max_size=1, max_count=1, max_age=1.0)
    assert bench.names("done") == {"a0.json", "a0.response.json"}, "it can be fetched for an hour"


def test_a_client_cannot_make_his_files_stay(bench: Bench) -> None:
    finish(bench, "a", at=OLD)
    age(bench, "a.response.json", time.time() + 1e9)
    bench.spool.refuse_reuse("a", "used", Origin(uid=0, gid=0, sha256="0" * 64, arrival=0))
    age(bench, "a@0-00000000.refused.json", time.time() + 1e9)
    sweep(bench)
    assert bench.names("done") == set()


def test_a_clock_that_is_set_back_removes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.drop("a")
    bench.drop("a", "echo other")
    bench.wait_for("a")
    before = bench.names("done")
    assert len(before) == 3
    monkeypatch.setattr(Clock, "file_system", lambda _: time.time() - 3600)
    sweep(bench)
    assert bench.names("done") == before


def test_who_reads_reads_on(bench: Bench) -> None:
    finish(bench, "a", at=OLD)
    with open(bench.root / "done" / "a.response.json", "rb") as reading:
        first = reading.read(5)
        sweep(bench)
        assert bench.names("done") == set()
        assert (first + reading.read()).endswith(b"}\n")


class Died(BaseException):
    """The process is killed at this point."""


def test_an_id_is_not_given_away_before_its_last_file_is_gone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash falls between the entry and the response. The old response must not become a new submission's answer."""
    finish(bench, "a", at=OLD)
    remove = fsops.remove

    def die_at_the_response(path: str) -> None:
        if path.endswith("done/a.response.json"):
            raise Died
        remove(path)

    with monkeypatch.context() as patched:
        patched.setattr(fsops, "remove", die_at_the_response)
        with pytest.raises(Died):
            sweep(bench)
    assert bench.names("done") == {"a.response.json"}
    bench.drop("a", "echo new")
    bench.drop_bytes("a", b"not json")
    time.sleep(bench.settings.spool.settle)
    bench.intake.step()
    bench.drop("a", "echo new")
    assert (bench.names("incoming"), bench.names("new")) == ({"a.json"}, set())
    sweep(bench)
    bench.intake.step()
    bench.wait_for("a")
    assert bench.response("a")["run"]["stdout"] == "new\n"
    bench.assert_nothing_is_left()


def test_a_result_that_an_earlier_life_left_is_not_a_later_ones(bench: Bench) -> None:
    finish(bench, "a", at=OLD)
    (bench.root / "tmp" / result_named("a", 2)).write_bytes(b"stale")
    (bench.root / "tmp" / result_named("b", 2)).write_bytes(b"another's")
    sweep(bench)
    assert bench.names("tmp") == {result_named("b", 2)}


def test_an_answer_that_comes_late_is_kept_as_long_as_any(bench: Bench) -> None:
    """The host was down for a long time before the commit, or before the publication."""
    queue, entry = bench.spool.queue, mine("a")
    bench.drop("a")
    queue.claim(entry, State.NEW, State.RUNNING)
    os.utime(queue.entry_path(State.RUNNING, entry), (OLD, OLD))
    queue.results.commit(entry, State.RUNNING, b"answer\n")
    sweep(bench)
    assert bench.names("done") == {"a.json", "a.response.json"}
    os.rename(bench.root / "done" / "a.response.json", bench.root / "tmp" / result_named("a"))
    age(bench, "a.json", OLD)
    publish_committed(queue, Log("test"))
    sweep(bench)
    assert bench.names("done") == {"a.json", "a.response.json"}


def test_what_is_no_answer_stays(bench: Bench) -> None:
    finish(bench, "a")
    for name in ("committed.json", "foreign.txt"):
        (bench.root / "done" / name).write_bytes(b"{}")
        age(bench, name, OLD)
    sweep(bench)
    assert {"committed.json", "foreign.txt", "a.json"} <= bench.names("done")


def test_it_is_archived_before_it_goes(bench: Bench, tmp_path: Path) -> None:
    finish(bench, "a", at=OLD)
    archive = tmp_path / "archive"
    archive.mkdir()
    sweep(bench, archive=["false"])
    sweep(bench, archive=["/nonexistent"])
    sweep(bench, archive=["sleep", "60"], archive_timeout=0.1)
    assert bench.names("done") == {"a.json", "a.response.json"}
    sweep(bench, archive=["xargs", "cp", "-pt", str(archive)])
    assert bench.names("done") == set()
    assert {path.name for path in archive.iterdir()} == {"a.json", "a.response.json"}


def test_what_was_done_anew_while_it_was_archived_stays(bench: Bench, tmp_path: Path) -> None:
    finish(bench, "a", at=OLD)
    sweep(bench, archive=["touch", "a.json"])
    assert bench.names("done") == {"a.json", "a.response.json"}


def finish_with_files(bench: Bench, *ids: str) -> None:
    for id_ in ids:
        bench.drop(id_, "head -c 2000000 /dev/zero >x", outputs=[{"path": "x"}])
    bench.wait_for(*ids)
    bench.until(lambda: not bench.names("tmp"), lambda: None)
    for id_ in ids:
        age(bench, f"{id_}.json", OLD)


@pytest.mark.parametrize("entry", [["a.json"], []], ids=["whole", "after a crash"])
def test_returned_files_go_after_their_response_and_count_with_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, entry: list[str]
) -> None:
    finish_with_files(bench, "a")
    if not entry:
        (bench.root / "done" / "a.json").unlink()
    (item,) = (item for item in items(everything(bench.spool, Seldom(log, bench.spool.clock))) if "a." in item.file)
    assert item.tar == "a.outputs.tar"
    assert item.size > 2_000_000
    gone: list[str] = []
    real_remove, real_sync = fsops.remove, fsops.sync_directory

    def remove(path: str) -> None:
        if fsops.exists(path):
            gone.append(os.path.basename(path))
        real_remove(path)

    def sync(path: str) -> None:
        gone.append(f"sync {os.path.basename(path.rstrip('/'))}")
        real_sync(path)

    monkeypatch.setattr(fsops, "remove", remove)
    monkeypatch.setattr(fsops, "sync_directory", sync)
    sweep(bench)
    assert gone == [*entry, "sync done", "a.response.json", "sync done", "a.outputs.tar"]


def test_returned_files_that_a_crash_left_go_at_once_and_no_others(bench: Bench) -> None:
    finish_with_files(bench, "a", "b", "c")
    for name in ("a.json", "a.response.json", "b.response.json"):
        (bench.root / "done" / name).unlink()
    for id_ in ("b", "c"):
        age(bench, f"{id_}.json", time.time())
    sweep(bench)
    assert bench.names("done") == {"b.json", "b.outputs.tar", "c.json", "c.response.json", "c.outputs.tar"}


def test_returned_files_that_cannot_be_looked_at_keep_their_response(bench: Bench) -> None:
    finish_with_files(bench, "a")
    with in_the_way("lstat", errno.EACCES, "a.outputs.tar"):
        sweep(bench)
        assert bench.names("done") == {"a.json", "a.response.json", "a.outputs.tar"}
    with in_the_way("unlink", errno.EBUSY, "a.outputs.tar"):
        sweep(bench)
        assert bench.names("done") == {"a.outputs.tar"}
    sweep(bench)
    assert bench.names("done") == set()


def test_returned_files_are_archived(bench: Bench, tmp_path: Path) -> None:
    finish_with_files(bench, "a")
    archive = tmp_path / "archive"
    archive.mkdir()
    sweep(bench, archive=["xargs", "cp", "-pt", str(archive)])
    assert {path.name for path in archive.iterdir()} == {"a.json", "a.response.json", "a.outputs.tar"}
    assert bench.names("done") == set()


def test_an_answer_that_cannot_be_looked_at_keeps_no_other(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """It counts by its entry meanwhile. Both go once the answer can be looked at."""
    finish(bench, "a", "b", "c", at=OLD)
    with in_the_way("lstat", errno.EACCES, "a.response.json"):
        counted = {item.entry: item for item in items(everything(bench.spool, Seldom(log, bench.spool.clock)))}
        assert {name: (item.owner, item.hidden) for name, item in counted.items() if name} == {
            "a.json": (os.geteuid(), True),
            "b.json": (os.geteuid(), False),
            "c.json": (os.geteuid(), False),
        }
        assert 0 < counted["a.json"].size < counted["b.json"].size
        sweep(bench)
        assert bench.names("done") == {"a.json", "a.response.json"}
    assert any(record.message.startswith("passed over") for record in caplog.records)
    sweep(bench)
    assert bench.names("done") == set()


def test_an_answer_that_cannot_be_removed_keeps_no_other(bench: Bench) -> None:
    finish(bench, "a", "b", "c", at=OLD)
    with in_the_way("unlink", errno.EBUSY, "a.response.json"):
        sweep(bench)
        assert bench.names("done") == {"a.response.json"}
    sweep(bench)
    assert bench.names("done") == set()


def test_an_entry_that_cannot_be_looked_at_is_none_that_is_gone(bench: Bench) -> None:
    finish(bench, "a")
    with in_the_way("lstat", errno.EIO, "a.json"):
        sweep(bench)
    assert bench.names("done") == {"a.json", "a.response.json"}


def test_what_cannot_be_looked_at_in_other_places_ends_no_walk(bench: Bench) -> None:
    bench.drop("b", expression="# slow")
    bench.backend.gate.clear()
    bench.until(lambda: bench.progress("b"))
    for name in ("progress/gone.json", "progress/hidden.json", "quarantine/gone.reason", "quarantine/hidden.reason"):
        (bench.root / name).touch()
        os.utime(bench.root / name, (OLD, OLD))
    with in_the_way("lstat", errno.EACCES, "hidden.json", "hidden.reason", "b.json"):
        counted = list(items(everything(bench.spool, Seldom(log, bench.spool.clock))))
        assert [item.entry for item in counted if item.entry] == [named("b")]
        assert [item.file for item in counted if item.file.endswith(".reason")] == ["gone.reason"]
        sweep(bench, quarantine_age=1.0, min_age=0.0)
    assert (bench.names("progress"), bench.names("quarantine")) == ({"b.json", "hidden.json"}, {"hidden.reason"})


def test_a_state_is_measured_without_what_cannot_be_looked_at(bench: Bench) -> None:
    finish(bench, "a")
    hidden = mock.Mock()
    hidden.name = "b.json"
    hidden.stat.side_effect = OSError(errno.EACCES, "Permission denied")
    with os.scandir(bench.root / "done") as entries:
        found = [hidden, *entries]
    with mock.patch.object(os, "scandir", return_value=contextlib.nullcontext(found)):
        assert [depth.number for depth in depths(str(bench.root), states=["done"])] == [2]


def test_a_side_file_in_the_way_stops_nobody(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """An owner who got the file can mount something over it. Then nobody can replace or remove it."""
    bench.backend.gate.clear()
    bench.drop("a", expression="# slow")
    bench.until(lambda: bench.progress("a") and bench.names("builds/building"))
    in_the_way_too = mock.patch.object(fsops, "replace", busy(fsops.replace, "a.json"))
    with in_the_way("unlink", errno.EBUSY, "a.json"), in_the_way_too:
        bench.executor.step([Hint("builds/building", name) for name in bench.names("builds/building")])
        assert any(record.message == "the response so far could not be written" for record in caplog.records)
        bench.backend.gate.set()
        bench.wait_for("a")
        bench.until(lambda: bench.names("tmp") <= {"a@1.progress.json"}, lambda: None)
        bench.health.step()
        assert bench.names("progress") == {"a.json"}
    bench.health.step()
    assert bench.names("progress") == set()
    said = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert said == ["passed over: a file cannot be looked at, read or removed"]


def busy(real: Callable[[str, str], None], name: str) -> Callable[[str, str], None]:
    def replace(private: str, public: str) -> None:
        if public.endswith(f"progress/{name}"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), public)
        real(private, public)

    return replace


def test_quarantine_is_kept_by_its_own_age(bench: Bench) -> None:
    bench.spool.set_aside("old", b"bytes", "why")
    bench.spool.set_aside("young", b"bytes", "why")
    for name in ("old.reason", "old.bytes"):
        os.utime(bench.root / "quarantine" / name, (OLD, OLD))
    (bench.root / "quarantine" / "x.json@1-2.directory" / "deep").mkdir(parents=True)
    os.utime(bench.root / "quarantine" / "x.json@1-2.directory", (1, 1))  # its client may set this time
    sweep(bench, quarantine_age=86400.0)
    assert bench.names("quarantine") == {"young.reason", "young.bytes", "x.json@1-2.directory"}
    bench.wait_for_a_tick()
    sweep(bench, quarantine_age=1e-6, min_age=0.0)
    assert bench.names("quarantine") == set()


def test_what_belongs_to_nothing_any_more_goes(bench: Bench) -> None:
    finish(bench, "a")
    builds = bench.names("builds/used")
    bench.drop("b")
    orphans = ["progress/gone.json", "tmp/gone@1.response.json", f"builds/used/{'0' * 64}@1"]
    orphans += [
        f"builds/tmp/{'0' * 64}@1.response.json",
        "builds/collect/by-hand-1.result.json",
    ]
    kept = [f"builds/used/{name}" for name in builds] + ["progress/b.json", "builds/collect/scheduled.result.json"]
    for name in (*orphans, *kept):
        (bench.root / name).touch()
        os.utime(bench.root / name, (OLD, OLD))
    (bench.root / "progress" / "fresh.json").touch()
    sweep(bench)
    assert [name for name in orphans if (bench.root / name).exists()] == []
    assert [name for name in (*kept, "progress/fresh.json") if not (bench.root / name).exists()] == []


def test_what_belongs_to_nothing_goes_a_little_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One user may have a side file, or a note of a use, for each of a million submissions."""
    monkeypatch.setattr(holdings, "PART", 5)
    for place in ("progress", "builds/used"):
        for number in range(50):
            (bench.root / place / f"{number:064}{'.json' if place == 'progress' else '@1'}").touch()
            os.utime(bench.root / place / f"{number:064}{'.json' if place == 'progress' else '@1'}", (OLD, OLD))

    def left() -> int:
        return len(bench.names("progress")) + len(bench.names("builds/used"))

    before = left()
    for _ in Retention(bench.settings, bench.spool, bench.builds).sweep():
        assert left() >= before - 5
        before = left()
    assert before == 0


def test_nobody_else_lists_what_is_done(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much lies in done/, no submission gets slower by that."""
    listed: list[str] = []

    def noting(real: Callable[[Any], object]) -> Callable[[Any], object]:
        def look(path: str | int) -> object:
            if isinstance(path, str):  # other code removes its temporary directories
                listed.append(os.path.relpath(path, bench.root))
            return real(path)

        return look

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, noting(getattr(os, name)))

    bench.drop("a")
    bench.wait_for("a")
    bench.drop("a")
    assert "new" in listed
    assert "done" not in listed


def test_health_sweeps_a_little_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "PART", 1)
    finish(bench, *(f"a{number}" for number in range(20)), at=OLD)
    sweeping = Retention(settings_for(bench.root), bench.spool, bench.builds)
    sweeping.step(0.0)
    steps = 0
    while sweeping._sweep is not None or not steps:
        sweeping.step(1e-6)
        steps += 1
    assert steps > 20
    assert bench.names("done") == set()
    bench.health.step()  # the next sweep is due only after the interval
