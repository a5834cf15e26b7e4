"""Data that is kept for a while takes a bounded part of memory, and leaves nothing."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import random
from pathlib import Path

import pytest

from spoold.host import spill
from spoold.host.spill import Spill


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep only ten bytes in memory."""
    monkeypatch.setattr(spill, "MOST", 10)
    monkeypatch.setattr(spill, "PIECE", 7)


def files(directory: Path) -> int:
    """Return how many files of a directory this process has open, with a name or without."""
    found = 0
    for each in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself
            found += os.readlink(f"/proc/self/fd/{each}").startswith(f"{directory}/")
    return found


@pytest.mark.usefixtures("small")
def test_what_was_added_is_read_from_any_place(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(1000)  # noqa: S311 - repeatable
    for size in (0, 1, 10, 11, 1000):
        kept = Spill(str(tmp_path), ".x")
        for at in range(0, size, 3):
            kept.add(data[at : min(at + 3, size)])
        assert kept.size == size
        for at, length in ((0, size), (size // 3, size // 2), (size, 0)):
            assert b"".join(kept.pieces(at, length)) == data[at : at + length]
        assert os.listdir(tmp_path) == []
        kept.close()
        kept.close()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size", [10, 100])
def test_bytes_that_are_missing_are_not_waited_for(tmp_path: Path, size: int) -> None:
    kept = Spill(str(tmp_path), ".x")
    kept.add(bytes(size))
    with pytest.raises(EOFError, match="1 bytes are missing"):
        list(kept.pieces(0, size + 1))
    kept.close()
    with pytest.raises(EOFError, match=f"{size} bytes are missing"):
        list(kept.pieces(0, size))


@pytest.mark.usefixtures("small")
def test_little_is_in_memory_and_the_file_has_no_name(tmp_path: Path) -> None:
    kept = Spill(str(tmp_path), ".x")
    kept.add(bytes(10))
    assert files(tmp_path) == 0
    kept.add(b"x")
    assert (files(tmp_path), os.listdir(tmp_path), bytes(kept._few)) == (1, [], b"")
    kept.close()
    assert files(tmp_path) == 0


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size", [8, 100])
def test_what_is_cut_is_gone_and_what_is_added_later_comes_in_its_place(tmp_path: Path, size: int) -> None:
    data = bytes(range(size))
    kept = Spill(str(tmp_path), ".x")
    kept.add(data)
    kept.cut(5)
    kept.add(b"xyz")
    assert (kept.size, b"".join(kept.pieces(0, kept.size))) == (8, data[:5] + b"xyz")
    assert size == 8 or os.fstat(kept._file).st_size == 8
    kept.cut(0)
    assert b"".join(kept.pieces(0, kept.size)) == b""
    kept.close()


@pytest.mark.usefixtures("small")
def test_it_is_closed_with_whoever_forgot_it(tmp_path: Path) -> None:
    kept = Spill(str(tmp_path), ".x")
    kept.add(bytes(11))
    assert files(tmp_path) == 1
    del kept
    gc.collect()
    assert files(tmp_path) == 0


@pytest.mark.usefixtures("small")
def test_where_each_file_has_a_name_it_is_one_of_ours_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = os.open, list[str]()

    def no_nameless_files(path: str, flags: int, *arguments: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        seen.append(path)
        return real(path, flags, *arguments)

    monkeypatch.setattr(os, "open", no_nameless_files)
    kept = Spill(str(tmp_path), ".ours")
    kept.add(bytes(11))
    assert [os.path.dirname(path) for path in seen] == [str(tmp_path)]
    assert seen[0].endswith(".ours")
    assert os.listdir(tmp_path) == []
    kept.close()
