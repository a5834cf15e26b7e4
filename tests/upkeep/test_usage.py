"""The executors' notes of who used their slots, and what they lead to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spoold.model.timeshare import HALF_LIFE
from spoold.spool import layout
from spoold.upkeep import usage

NOW = 1_000_000.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    layout.create(str(tmp_path))
    return tmp_path


def note(root: Path, name: str, used: dict[int, float], age: float = 0.0) -> Path:
    usage.note(str(root), name, used)
    path = root / "tmp" / f"{name}.usage"
    os.utime(path, (NOW - age, NOW - age))
    return path


def test_executors_are_added_up_and_old_notes_fade(root: Path) -> None:
    note(root, "executor-a", {1001: 8.0, 1002: 2.0})
    note(root, "executor-b", {1001: 4.0}, age=HALF_LIFE)
    assert usage.noted(str(root), NOW) == pytest.approx({1001: 10.0, 1002: 2.0})
    assert usage.noted(str(root), NOW - 10) == pytest.approx({1001: 10.0, 1002: 2.0}, rel=0.01), "clocks differ"


def test_so_many_are_named_and_all_others_are_one(root: Path) -> None:
    """A person who can choose uids, on a file server's client, cannot make it grow."""
    path = note(root, "executor-a", {uid: 1000.0 - uid for uid in range(1000)})
    assert len(path.read_text().splitlines()) == usage.MOST + 1
    noted = usage.noted(str(root), NOW)
    assert set(noted) == {*range(usage.MOST), usage.OTHERS}
    assert sum(noted.values()) == pytest.approx(sum(range(1001)))


@pytest.mark.parametrize(
    "content",
    [b"", b"1001\n", b"x 1.000\n1001 1e99\n-1 2.000\n", b"\xff\xfe", b"1001 nan\n", b"1001 1.000 \n", b"1" * 99],
)
def test_what_is_no_note_is_nothing(root: Path, content: bytes) -> None:
    (root / "tmp" / "executor-a.usage").write_bytes(content)
    assert usage.noted(str(root), NOW) == {}


def test_no_link_fifo_or_huge_file_is_followed_or_waited_for(root: Path) -> None:
    """Every daemon can write there, and an operator reads it as root."""
    (root / "secret").write_text("1001 1.000\n")
    (root / "tmp" / "executor-a.usage").symlink_to(root / "secret")
    os.mkfifo(root / "tmp" / "executor-b.usage")
    (root / "tmp" / "executor-c.usage").write_bytes(b"1001 1.000\n" * 10_000)
    (root / "tmp" / "executor-d.usage").mkdir()
    assert usage.noted(str(root), NOW) == {}
