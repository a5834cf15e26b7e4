"""Results of builds that an executor needs again are read once, and never after another file has taken their place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spoold.config import Settings, SpoolSettings
from spoold.host import fsops
from spoold.model import formats
from spoold.model.collection import RECENT, Held, Rules, unused
from spoold.model.ids import Entry
from spoold.model.job import BuildResult
from spoold.model.response import SKIPPED_PHASE
from spoold.model.states import State
from spoold.model.submission import Dependencies
from spoold.spool import builds, layout, uses
from spoold.spool.builds import BuildRecord, BuildStore

ID = "a" * 64


def shell_path(name: str) -> str:
    return f"/nix/store/{'0' * 32}-{name}"


@pytest.fixture
def store(tmp_path: Path) -> BuildStore:
    layout.create(str(tmp_path))
    return BuildStore(Settings(spool=SpoolSettings(path=str(tmp_path))))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the name of each file is added that is read from now on."""
    found: list[str] = []
    read = fsops.read

    def noted(path: str, limit: int = 1 << 31) -> bytes | None:
        found.append(os.path.basename(path))
        return read(path, limit)

    monkeypatch.setattr(fsops, "read", noted)
    return found


def record(shell: str = shell_path("x"), build_id: str = ID, closure: int = 0) -> bytes:
    result = BuildResult(phase=SKIPPED_PHASE, shell=shell, closure=[shell] * closure)
    return formats.encode(BuildRecord(build_id=build_id, finished=1.0, result=result))


def put(store: BuildStore, data: bytes, build_id: str = ID) -> Path:
    path = Path(store.result_path(build_id))
    path.with_suffix(".new").write_bytes(data)
    path.with_suffix(".new").rename(path)
    return path


def shell_of(store: BuildStore, build_id: str = ID) -> str | None:
    found = store.result(build_id)
    return found.result.shell if found else None


def test_a_record_is_read_once(store: BuildStore, reads: list[str]) -> None:
    put(store, record())
    assert [shell_of(store) for _ in range(3)] == [shell_path("x")] * 3
    assert len(reads) == 1


def test_another_file_is_another_record(store: BuildStore) -> None:
    path = put(store, record(shell_path("a")))
    assert shell_of(store) == shell_path("a")
    put(store, record(shell_path("b")))
    assert shell_of(store) == shell_path("b")
    path.write_bytes(b"{")
    assert shell_of(store) is None
    path.unlink()
    assert shell_of(store) is None
    put(store, record(shell_path("c")))
    assert shell_of(store) == shell_path("c")


def test_of_large_records_none_is_kept_and_of_many_a_few(
    store: BuildStore, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builds, "KEPT", 2)
    put(store, record(closure=builds.SMALL // 40))
    assert shell_of(store) == shell_of(store) != ""
    assert len(reads) == 2
    names = [character * 64 for character in "bcd"]
    for name in names:
        put(store, record(build_id=name), name)
        assert shell_of(store, name)
    reads.clear()
    assert shell_of(store, "b" * 64)
    assert shell_of(store, "d" * 64)
    assert reads == ["b" * 64 + ".response.json"]


def test_a_use_is_noted_once_in_a_moment_and_never_forgotten(
    store: BuildStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("spoold.spool.uses.time.monotonic", lambda: now[0])
    used = Path(store.queue.path("used", f"{ID}@7"))
    store.uses.note_again(ID, 7)
    os.utime(used, (1, 1))
    now[0] += uses.ONCE / 2
    store.uses.note_again(ID, 7)
    assert used.stat().st_mtime == 1
    store.uses.note_again(ID, 8)
    assert used.with_name(f"{ID}@8").exists()
    store.uses.note(ID, 7)
    assert used.stat().st_mtime > 1
    os.utime(used, (1, 1))
    now[0] += uses.ONCE
    store.uses.note_again(ID, 7)
    assert used.stat().st_mtime > 1


def test_no_build_goes_within_the_time_in_which_its_use_is_not_noted_again() -> None:
    assert uses.ONCE < RECENT
    rules = Rules(max_age=0.1, max_count=1, max_size=1, min_free=1 << 60)
    for age, goes in ((0.0, False), (RECENT - 0.1, False), (RECENT + 0.1, True), (-60.0, True)):
        build = Held(build_id=ID, last_used=1000.0 - age, own_size=1, needed=False)
        assert bool(unused([build], rules, now=1000.0, store_size=9, free=0)) is goes


def test_what_is_asked_for_and_not_there_is_noted_each_time(store: BuildStore) -> None:
    """This decides whose turn a build is, even if the build was forgotten a moment ago."""
    store.queue.add(Entry(ID, 1), formats.encode(Dependencies(build_id=ID, expression="", nixpkgs="")))
    assert store.look(ID) == "queued"
    store.uses.note(ID, 7)
    store.uses.forget([ID])
    store.uses.note(ID, 7)
    assert store.uses.askers() == {ID: {7}}
    assert store.queue.entries(State.NEW)
