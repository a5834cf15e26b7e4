"""A person's own record of their submissions to a spool, for ``spoolctl list`` and for the completion of ids.

A spool does not list its submissions to anybody. So the commands that submit record them: one line of JSON for each
submission, in one file for each spool, in ``$XDG_STATE_HOME/spoold``. The record is a convenience: no submission fails
because it cannot be written.

Theory of operation. Several processes may add at once: each holds a lock on the file while it writes its line. When the
file has become too large, a new file with its newer half replaces it, under the same lock. So a process that gets the
lock checks whether its open file is still the one of that name. A line that a crash cut off is ignored.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator

import msgspec

from spoold import client
from spoold.cli import homes
from spoold.cli.text import printable
from spoold.client import names
from spoold.client.address import ELSEWHERE

MOST = 1 << 21  # bytes of a file, which is enough for about 20,000 submissions to each spool
LONGEST = 200  # characters of a file name
ODD = re.compile(rb"[^A-Za-z0-9._-]")


class Entry(msgspec.Struct, frozen=True):
    """A submission: its id, what it was made from, and its time in seconds since the epoch."""

    id: str
    name: str = ""
    at: float = 0.0


class Record:
    """The record of submissions to a spool, given as a :class:`client.Spool` or as its address."""

    def __init__(self, spool: client.Spool | str) -> None:
        where = spool if isinstance(spool, str) else spool.where
        self.path = os.path.join(place(), f"{_file_name(where)}.jsonl")

    def add(self, id_: str, name: str) -> bool:
        """Record a submission, and return whether that worked."""
        if self.path.startswith(f"{homes.NOWHERE}/"):
            return False  # root could make the home that nobody should have
        try:
            line = msgspec.json.encode(Entry(id_, printable(name), round(time.time(), 3))) + b"\n"
            os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
            with self._locked() as file:
                size = os.fstat(file).st_size
                torn = size and os.pread(file, 1, size - 1) != b"\n"
                os.write(file, b"\n" + line if torn else line)
                if size > MOST:
                    self._shorten(file)
        except OSError:
            return False
        return True

    def can_add(self) -> bool:
        """Tell whether a submission can be recorded, as far as the rights to the file or its directory tell."""
        path = self.path
        if path.startswith(f"{homes.NOWHERE}/"):
            return False
        while not os.path.lexists(path):
            path = os.path.dirname(path)
        return (path == self.path or os.path.isdir(path)) and os.access(path, os.W_OK)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Yield a descriptor of the file at ``path``. Nobody else changes the file meanwhile."""
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if self._is(os.fstat(file).st_ino):
                    yield file
                    return
            finally:
                os.close(file)

    def _is(self, inode: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.stat(self.path).st_ino == inode
        return False

    def _shorten(self, file: int) -> None:
        size = os.fstat(file).st_size
        _, _, newer = os.pread(file, size, size // 2).partition(b"\n")
        private = f"{self.path}.{os.getpid()}.tmp"
        try:
            with open(private, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as made:
                made.write(newer)
            os.rename(private, self.path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(private)

    def entries(self) -> list[Entry]:
        """Return the submissions, the newest first. A repeated submission counts by its latest time."""
        try:
            with open(self.path, "rb") as file:
                found = [entry for line in file if (entry := _entry(line))]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return list({entry.id: entry for entry in reversed(found)}.values())


def place() -> str:
    """Return the directory of all records."""
    return os.path.join(homes.place("XDG_STATE_HOME", ".local/state"), "spoold")


def _file_name(where: str) -> str:
    """Return a file name that is unique to this spool."""
    address = where.rstrip("/") if where.startswith(ELSEWHERE) else os.path.realpath(where)
    name = ODD.sub(lambda match: b"%%%02X" % match[0][0], os.fsencode(address)).decode()
    if len(name) <= LONGEST:
        return name
    import hashlib  # noqa: PLC0415 - it loads OpenSSL, and few addresses are that long

    return f"{name[:100]}-{hashlib.sha256(os.fsencode(address)).hexdigest()}"


def _entry(line: bytes) -> Entry | None:
    with contextlib.suppress(msgspec.DecodeError):
        entry = msgspec.json.decode(line, type=Entry)
        return entry if names.is_id(entry.id) else None
    return None
