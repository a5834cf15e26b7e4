"""The file system's clock is asked once for all that arrives within a second."""

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
        """Stand for a file server whose clock is at the beginning of time."""
        asked.append(path)
        there = touch(path)
        if there:
            os.utime(path, (1000, 1000))
        return there

    monkeypatch.setattr(fsops, "touch", behind)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    clock = Clock(str(tmp_path / "probe"))
    assert clock.arrival() == 1000
    asked.clear()
    now += OFTEN / 2
    assert clock.arrival() == pytest.approx(1000 + OFTEN / 2)
    assert not asked
    now += OFTEN / 2
    assert clock.arrival() == 1000
    assert len(asked) == 1
