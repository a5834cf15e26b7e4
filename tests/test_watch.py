"""Real inotify, and its polling stand-in, tell what the ways to write a file look like."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spoold.model.ids import Hint
from spoold.watch import HOLDS_NOTHING_BACK, MOST_HINTS, Watch

PATIENCE = 60.0  # seconds


@pytest.fixture(params=[False, True], ids=["inotify", "polling"])
def watch(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watch]:
    for name in ("incoming", "other"):
        (tmp_path / name).mkdir()
    made = Watch(str(tmp_path), ["incoming"], remote=request.param, poll=0.05)
    made.start()
    yield made
    made.stop()


def written(path: Path) -> None:
    path.write_bytes(b"x")


def moved_in(path: Path) -> None:
    private = path.parent.parent / "other" / "x"
    private.write_bytes(b"x")
    private.rename(path)


def renamed_in_place(path: Path) -> None:
    private = path.with_name(".private.tmp")
    private.write_bytes(b"x")
    private.rename(path)


def linked(path: Path) -> None:
    private = path.parent.parent / "other" / "x"
    private.write_bytes(b"x")
    os.link(private, path)


@pytest.mark.parametrize("make", [written, moved_in, renamed_in_place, linked])
def test_a_new_name_is_told_however_it_came(watch: Watch, tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "incoming" / "a.json")
    seen: set[Hint] = set()
    deadline = time.monotonic() + PATIENCE
    while Hint("incoming", "a.json") not in seen:
        assert time.monotonic() < deadline, seen
        seen |= set(watch.wait(0.2) or [])


def test_uploads_in_progress_wake_nobody(watch: Watch, tmp_path: Path) -> None:
    """However many come and go: what nobody looks at may not flood those who wait for others' files."""
    for number in range(MOST_HINTS + 100):  # fewer than the kernel keeps for who is slow
        path = tmp_path / "incoming" / (f".{number}" if number % 2 else f"{number}.part")
        path.touch()
        path.unlink()
    (tmp_path / "incoming" / "a.json").touch()
    seen: list[Hint] = []
    deadline = time.monotonic() + PATIENCE
    while not seen:
        assert time.monotonic() < deadline
        seen = watch.wait(0.2) or []
    assert set(seen) == {Hint("incoming", "a.json")}


def test_what_leaves_a_directory_holds_up_nothing_that_comes(tmp_path: Path) -> None:
    """watchdog would keep back all that follows an unpaired rename for half a second."""
    assert HOLDS_NOTHING_BACK, "this version of watchdog has another way to hold events back: see to it"
    for name in ("incoming", "other"):
        (tmp_path / name).mkdir()
    watch = Watch(str(tmp_path), ["incoming"], remote=False, poll=0.05)
    watch.start()
    quickest = 10.0
    for number in range(5):
        (tmp_path / "incoming" / "old").touch()
        time.sleep(0.1)
        watch.wait(0.1)
        (tmp_path / "incoming" / "old").rename(tmp_path / "other" / "old")
        began = time.monotonic()
        (tmp_path / "incoming" / f"{number}.json").touch()
        while Hint("incoming", f"{number}.json") not in (watch.wait(5) or []):
            assert time.monotonic() - began < PATIENCE
        quickest = min(quickest, time.monotonic() - began)
    watch.stop()
    assert quickest < 0.4, "not one of five came before the half second was over"


def test_without_an_event_it_is_time_for_a_scan(watch: Watch) -> None:
    assert watch.wait(0.05) is None


def test_other_directories_are_not_told(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "other" / "a.json").write_bytes(b"x")
    assert watch.wait(0.3) is None


def test_a_flood_of_events_becomes_a_scan(watch: Watch, tmp_path: Path) -> None:
    for number in range(MOST_HINTS + 100):
        (tmp_path / "incoming" / f"{number}.json").touch()
    deadline = time.monotonic() + PATIENCE
    while not watch._flooded:
        assert time.monotonic() < deadline, "more was told than is kept"
        time.sleep(0.01)
    assert watch.wait(0.5) is None


def test_a_wait_can_be_ended(watch: Watch) -> None:
    threading.Timer(0.1, watch.wake).start()
    began = time.monotonic()
    assert watch.wait(30) is None
    assert time.monotonic() - began < 20
