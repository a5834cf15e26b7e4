"""After an error of a link or a rename, the files decide, because a file server's answer may be lost."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spoold.host import fsops
from spoold.host.locks import locked

ANY = [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOENT, errno.EEXIST]


def failing(real: Callable[..., Any], number: int, *, done: bool) -> Callable[..., Any]:
    """Return a ``real`` that reports an error, after it did its work or without doing it."""

    def call(*arguments: Any, **options: Any) -> Any:
        if done:
            real(*arguments, **options)
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture
def private(tmp_path: Path) -> Path:
    made = tmp_path / "private"
    made.write_bytes(b"new")
    return made


@pytest.mark.parametrize("number", ANY)
def test_a_link_that_was_made_is_made(
    private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "link", failing(os.link, number, done=True))
    assert fsops.publish(str(private), str(tmp_path / "public"))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_link_that_was_not_made_is_not(
    private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "link", failing(os.link, number, done=False))
    with pytest.raises(OSError, match=os.strerror(number)):
        fsops.publish(str(private), str(tmp_path / "public"))


@pytest.mark.parametrize("number", ANY)
@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("done", [False, True])
def test_a_rename_is_done_where_it_was_whatever_was_reported(
    private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, number: int, is_there: bool, done: bool
) -> None:
    public = tmp_path / "public"
    if is_there:
        public.write_bytes(b"old")
    monkeypatch.setattr(os, "rename", failing(os.rename, number, done=done))
    with contextlib.nullcontext() if done else pytest.raises(OSError, match=os.strerror(number)):
        fsops.replace(str(private), str(public))
    assert not done or public.read_bytes() == b"new"


def test_a_note_says_what_was_left_first_until_it_is_replaced(tmp_path: Path) -> None:
    path, private = str(tmp_path / "note"), str(tmp_path / "private")
    assert fsops.noted(path) is None
    assert fsops.note(path, "one")
    assert fsops.note(path, "one"), "a note with the same text counts as made"
    assert not fsops.note(path, "two")
    assert fsops.noted(path) == "one"
    assert fsops.note(path, "two", private)
    assert (fsops.noted(path), os.listdir(tmp_path)) == ("two", ["note"])
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Invalid argument"):
        fsops.noted(str(tmp_path / "file"))


@pytest.mark.parametrize("private", ["", "private"])
def test_a_note_whose_answer_was_lost_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private: str) -> None:
    """An NFS client that got no answer asks again, and is told that the name exists."""
    path = str(tmp_path / "note")
    monkeypatch.setattr(os, "symlink", failing(os.symlink, errno.EEXIST, done=True))
    assert fsops.note(path, "one", private and str(tmp_path / private))
    assert (fsops.noted(path), os.listdir(tmp_path)) == ("one", ["note"])


def test_the_rest_of_a_crash_is_replaced_also_where_its_removal_is_answered_late(
    private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "unlink", failing(os.unlink, errno.ENOENT, done=True))
    fsops.write_private(str(private), b"newer")
    assert private.read_bytes() == b"newer"


def test_a_lock_is_on_a_file_that_is_open_for_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS refuses exclusive locks on other files (EBADF)."""
    modes = []
    monkeypatch.setattr(fcntl, "flock", lambda fd, _: modes.append(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE))
    with locked(str(tmp_path / "lock"), exclusive=True):
        assert modes == [os.O_RDWR]


def test_a_file_that_the_server_has_no_more_stands_for_nothing(private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another host replaced the file, so the descriptor is as good as closed."""
    kept = fsops.keep_open(str(private))
    assert kept
    assert fsops.stands_for(str(private), kept)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", failing(os.fstat, errno.ESTALE, done=False))
        still = fsops.stands_for(str(private), kept)
    kept.close()
    assert not still


def test_what_cannot_be_looked_at_is_not_said_to_be_gone(private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (fsops.exists(str(private)), fsops.exists(f"{private}-not")) == (True, False)
    with monkeypatch.context() as patched:
        patched.setattr(os, "lstat", failing(os.lstat, errno.EIO, done=False))
        with pytest.raises(OSError, match="error"):
            fsops.exists(str(private))


def test_no_more_is_read_than_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert fsops.read(str(tmp_path / "file"), 5) == b"12345"
    with pytest.raises(fsops.OddFileError, match="more than 4 bytes"):
        fsops.read(str(tmp_path / "file"), 4)
    assert fsops.read(str(tmp_path / "none"), 4) is None


@pytest.mark.parametrize("size", [0, 1, 5, 6, 100])
@pytest.mark.parametrize("limit", [5, 6, 100])
def test_all_is_read_whatever_the_file_has_become_since_it_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, limit: int
) -> None:
    """The file may grow or be cut during the read. A large one is read in pieces."""
    path = tmp_path / "file"
    path.write_bytes(b"abcdef")
    for piece in (2, 1 << 20):
        monkeypatch.setattr(fsops, "PIECE", piece)
        with path.open("rb", buffering=0) as file:
            found = fsops.read_open(file.fileno(), limit, size)
        assert found == b"abcdef"[:limit]


def test_what_is_kept_open_is_read_whatever_its_name_stands_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"this")
    kept = fsops.keep_open(str(path))
    assert kept is not None
    path.unlink()
    path.write_bytes(b"another")
    with kept:
        assert fsops.read_kept(kept) == b"this"


def test_what_is_no_file_is_neither_followed_nor_waited_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("link", "directory", "fifo", "socket"):
            with pytest.raises(fsops.OddFileError, match="not a regular file"):
                fsops.read(str(tmp_path / name))
