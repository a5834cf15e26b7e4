"""Real inotify, and its polling stand-in, report each way to write a file."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spoold import watch as watching
from spoold.host.inotify import Inotify
from spoold.model.ids import Hint
from spoold.watch import Watch

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
    """However many uploads come and go, they may not flood daemons that wait for other files."""
    for number in range(5000):  # fewer than the kernel keeps for a slow reader
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


def test_without_an_event_it_is_time_for_a_scan(watch: Watch) -> None:
    assert watch.wait(0.05) is None


def test_other_directories_are_not_told(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "other" / "a.json").write_bytes(b"x")
    assert watch.wait(0.3) is None


def told(watch: Watch, name: str) -> int:
    """Wait for the hint of ``name``. Return how often a scan was due meanwhile."""
    scans, deadline = 0, time.monotonic() + PATIENCE
    while True:
        hints = watch.pending()
        if hints is None:
            scans += 1
        elif Hint("incoming", name) in hints:
            return scans
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_what_is_too_much_becomes_a_scan_and_what_came_before_is_told(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MOST_HINTS", 100)
    watch.note([Hint("incoming", f"{number}.json") for number in range(100)])
    for number in range(100, 150):
        (tmp_path / "incoming" / f"{number}.json").touch()
    deadline = time.monotonic() + PATIENCE
    while not watch._lost:
        assert time.monotonic() < deadline, "the watch never noticed that there were too many hints"
        time.sleep(0.01)
    assert watch.wait(0.5) is None
    seen: set[Hint] = set()
    while not seen >= {Hint("incoming", f"{number}.json") for number in range(100)}:
        assert time.monotonic() < deadline, seen
        seen |= set(watch.wait(0.5) or [])  # None again where the observer was still reading the surplus


def most_events() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


def halted(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let nobody read the kernel's events until the returned event is set."""
    go_on = threading.Event()
    read = Inotify.read

    def wait_and_read(self: Inotify) -> bytes | None:
        go_on.wait(PATIENCE)
        return read(self)

    monkeypatch.setattr(Inotify, "read", wait_and_read)
    return go_on


def test_what_the_kernel_did_not_keep_becomes_a_scan_and_what_it_kept_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if most_events() > 20_000:
        pytest.skip("this kernel keeps too many events for a test")
    (tmp_path / "incoming").mkdir()
    go_on = halted(monkeypatch)
    watch = Watch(str(tmp_path), ["incoming"], remote=False, poll=0.05)
    watch.start()
    (tmp_path / "incoming" / "first.json").touch()
    # two names by turns, because the kernel merges equal events that follow each other
    for number in range(most_events()):
        os.close(os.open(tmp_path / "incoming" / f".{number % 2}", os.O_CREAT | os.O_WRONLY))
    (tmp_path / "incoming" / "last.json").touch()
    go_on.set()
    assert told(watch, "first.json") == 1
    assert watch.pending() == []
    watch.stop()


def test_what_is_only_written_to_takes_no_room_in_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes of modes and times take no room either. A process can make a million of them a second."""
    (tmp_path / "incoming").mkdir()
    own = [open(tmp_path / "incoming" / f".{number}", "wb", buffering=0) for number in range(2)]  # noqa: SIM115
    go_on = halted(monkeypatch)
    watch = Watch(str(tmp_path), ["incoming"], remote=False, poll=0.05)
    watch.start()
    for number in range(min(20_000, most_events() + 1)):
        os.pwrite(own[number % 2].fileno(), b"x", 0)
        os.fchmod(own[number % 2].fileno(), 0o600)
    (tmp_path / "incoming" / "a.json").touch()
    go_on.set()
    assert watch.wait(PATIENCE) == [Hint("incoming", "a.json")]
    watch.stop()
    for file in own:
        file.close()


def test_a_wait_can_be_ended(watch: Watch) -> None:
    threading.Timer(0.1, watch.wake).start()
    began = time.monotonic()
    assert watch.wait(30) is None
    assert time.monotonic() - began < 20


def test_a_daemon_of_a_local_spool_has_no_memory_for_polling() -> None:
    """The library for polling takes a megabyte of memory in each of the four daemons."""
    code = "import sys, spoold.cli.daemon; sys.exit('watchdog' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
