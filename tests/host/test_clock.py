"""The file system's clock is asked once for everything that arrives within a second."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from spoold.host import fsops
from spoold.host.clock import OFTEN, Clock


def test_the_file_system_is_asked_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    touch = fsops.touch

    def behind(path: str) -> bool:
        """Act like a file server whose clock is at the beginning of time."""
        asked.append(path)
        there = touch(path)
        if there:
            os.utime(path, (1000, 1000))
        return there

    monkeypatch.setattr(fsops, "touch", behind)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    clock = Clock(str(tmp_path / "probe"))
    assert clock.arrival() == pytest.approx(1000)
    asked.clear()
    now += OFTEN / 2
    assert clock.arrival() == pytest.approx(1000 + OFTEN / 2)
    assert not asked
    now += OFTEN / 2
    assert clock.arrival() == pytest.approx(1000)
    assert len(asked) == 1


@pytest.mark.parametrize("stall", [3.0, 0.0])
def test_what_comes_later_has_no_earlier_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stall: float) -> None:
    """This holds if a file's time lags by a part of a tick, and if the process stalls between two looks at clocks."""
    now, mtime = [100.0], fsops.mtime

    def late(path: str) -> float | None:
        found = mtime(path)
        now[0] += stall
        return found

    def touch(path: str) -> bool:
        Path(path).touch()
        os.utime(path, (5000 + now[0] // 0.0037 * 0.0037,) * 2)
        return True

    monkeypatch.setattr(fsops, "touch", touch)
    monkeypatch.setattr(fsops, "mtime", late)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: 5000 + now[0])
    clock = Clock(str(tmp_path / "probe"))
    times = []
    for _ in range(3000):
        now[0] += 0.0013
        times.append(clock.arrival())
    assert times == sorted(times)
    assert times[-1] == pytest.approx(5000 + now[0], abs=0.01)
