"""The attributes of a file, as values to keep and compare later: identity, owner, size and rights.

Nothing here changes or opens a file. lstat(2) describes a link itself, not the file that it leads to.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from spoold.host import acl
from spoold.host.pulse import beat

BLOCK = 512  # bytes: the unit of st_blocks


class Identity(NamedTuple):
    """What tells whether a name still stands for the same bytes: device, inode, size, mtime and ctime in ns."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class Owned(NamedTuple):
    """Who owns a file, when it was last changed in any way, in ns, and its length in bytes."""

    uid: int
    changed_ns: int
    length: int


class Facts(NamedTuple):
    """The facts about a name.

    Times are seconds since the epoch. ``size`` is the bytes that it takes of the disk, which is not its length: see
    st_blocks in stat(2). ``directory`` tells whether it is one, and ``uid`` is its owner's.
    """

    mtime: float
    ctime: float
    size: int
    directory: bool
    uid: int


class Rights(NamedTuple):
    """The rights on a file: its owner, group and mode bits, and its access control list or None."""

    uid: int
    gid: int
    mode: int
    access: bytes | None


def identity(path: str) -> Identity | None:
    """Return what ``path`` stands for now, None where it is gone."""
    found = _found(path)
    return None if found is None else identity_of(found)


def identity_of(found: os.stat_result) -> Identity:
    """Return the identity in an answer of stat(2) or fstat(2)."""
    return Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def owner(path: str) -> Owned | None:
    """Return who owns what ``path`` stands for, None where it is gone."""
    found = _found(path)
    return None if found is None else Owned(found.st_uid, found.st_ctime_ns, found.st_size)


def facts(path: str) -> Facts | None:
    """Return the facts about a name, None where it is gone."""
    found = _found(path)
    if found is None:
        return None
    directory = stat.S_ISDIR(found.st_mode)
    return Facts(found.st_mtime, found.st_ctime, found.st_blocks * BLOCK, directory, found.st_uid)


def mtime_and_links(path: str | os.PathLike[str]) -> tuple[float, int] | None:
    """Return a file's mtime in seconds since the epoch and how many names it has, None where it is gone."""
    found = _found(path)
    return None if found is None else (found.st_mtime, found.st_nlink)


def rights(path: str) -> Rights | None:
    """Return who owns a file and who may use it, None where it is gone."""
    found = _found(path)
    if found is None:
        return None
    try:
        return Rights(found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode), acl.of(path))
    except FileNotFoundError:
        return None


def shared_inode(path: str) -> int | None:
    """Return the inode of a file that has other names as well, None where it has none or is gone."""
    found = _found(path)
    return found.st_ino if found is not None and found.st_nlink > 1 else None


def _found(path: str | os.PathLike[str]) -> os.stat_result | None:
    beat()
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None
