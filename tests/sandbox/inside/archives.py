"""Work directories and their archives as tests see them, without code of the program that makes them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from spoold.sandbox.facts import JOB_UID

HEAD, RECORD, EXTENT = struct.Struct("<QQQ"), struct.Struct("<BBHIQqqqq"), struct.Struct("<QQ")
MAGIC, FORMAT = int.from_bytes(b"spoold", "little"), 1
DIRECTORY, LEAVE, REGULAR, SYMLINK, LINK = range(1, 6)


class Seen(NamedTuple):
    """Everything that a test can see of a file."""

    mode: int
    size: int
    changed: int  # nanoseconds since the epoch
    read: int  # likewise; 0 for files that are not regular
    names: tuple[str, ...]  # all names of a file that is not a directory
    content: str  # a link's target, a file's digest, or a directory's names in their order
    pieces: tuple[tuple[int, int], ...]  # pieces of a file between its holes


@contextlib.contextmanager
def as_job() -> Iterator[None]:
    """Act as the job's user."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(JOB_UID)
    os.seteuid(JOB_UID)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def listing(root: Path) -> dict[str, Seen]:
    """Return everything below ``root``, and the directory itself, by path."""
    paths: defaultdict[int, list[Path]] = defaultdict(list)
    statuses = {}
    for path in (root, *_below(root)):
        status = path.lstat()
        paths[status.st_ino].append(path)
        statuses[status.st_ino] = status
    found = {}
    for inode, same in paths.items():
        seen = _seen(same[0], statuses[inode], tuple(sorted(str(path.relative_to(root)) for path in same)))
        found.update(dict.fromkeys(seen.names, seen))
    return found


def _is_directory(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)


def _below(root: Path) -> Iterator[Path]:
    for path in root.iterdir():
        yield path
        if _is_directory(path):
            yield from _below(path)


def _seen(path: Path, status: os.stat_result, names: tuple[str, ...]) -> Seen:
    mode, size, changed = status.st_mode, status.st_size, status.st_mtime_ns
    if stat.S_ISREG(mode):
        return Seen(mode, size, changed, status.st_atime_ns, names, *_content(path, size))
    if stat.S_ISLNK(mode):
        return Seen(mode, size, changed, 0, names, str(path.readlink()), ())
    return Seen(mode, 0, changed, 0, names, "\0".join(each.name for each in path.iterdir()), ())


def _content(path: Path, size: int) -> tuple[str, tuple[tuple[int, int], ...]]:
    digest, pieces, end = hashlib.sha256(), [], 0
    file = os.open(path, os.O_RDONLY | os.O_NOATIME | os.O_NOFOLLOW)
    with contextlib.suppress(OSError):  # no data follows
        while end < size:
            begin = os.lseek(file, end, os.SEEK_DATA)
            end = os.lseek(file, begin, os.SEEK_HOLE)
            pieces.append((begin, end))
    for begin, end in pieces:
        digest.update(os.pread(file, end - begin, begin))
    os.close(file)
    return digest.hexdigest(), tuple(pieces)


def empty(root: Path) -> None:
    """Remove everything below ``root``."""
    for path in root.iterdir():
        if _is_directory(path):
            empty(path)
            path.rmdir()
        else:
            path.unlink()


def archive(*parts: bytes) -> bytes:
    """Return an archive of these records, between the records of the work directory."""
    return whole(record(DIRECTORY, mode=0o755), *parts, record(LEAVE))


def whole(*parts: bytes) -> bytes:
    """Return an archive of exactly these records."""
    content = b"".join(parts)
    return HEAD.pack(MAGIC, FORMAT, HEAD.size + len(content)) + content


def record(
    kind: int, name: bytes = b"", *, mode: int = 0o755, size: int = 0, nanoseconds: int = 5, shared: bool = False
) -> bytes:
    """Return a record without the data that follows it."""
    return RECORD.pack(kind, shared, len(name), mode, size, 1, nanoseconds, 1, 5) + name


def regular(name: bytes, content: bytes = b"", *, shared: bool = False, mode: int = 0o644) -> bytes:
    """Return the records of a regular file."""
    pieces = extent(0, content) if content else b""
    return record(REGULAR, name, mode=mode, size=len(content), shared=shared) + pieces + extent(0)


def extent(at: int, content: bytes = b"") -> bytes:
    """Return a piece of a file."""
    return EXTENT.pack(at, len(content)) + content


def symlink(name: bytes, target: bytes, *, shared: bool = False) -> bytes:
    """Return the record of a symbolic link."""
    return record(SYMLINK, name, mode=0o777, size=len(target), shared=shared) + target
