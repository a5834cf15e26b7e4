"""File operations of the spool: each is one system call, or a few in a fixed order.

Spec: spool-layout.md, "Durability". Every change of the spool goes through here. So one place shows what is synced and
in which order, and a test can stop the process before and after each operation.

The files are ours, but any of our daemons could put something else in their place. So no link is followed, and no open
waits. Files of clients are for :mod:`spoold.host.strangers`. A public file is linked into place, and a link never
overwrites. Only :func:`replace` overwrites, and it says for which files.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Iterable, Iterator

from spoold.host import acl
from spoold.host.attributes import identity
from spoold.host.pulse import beat

PIECE = 1 << 20  # bytes that are read at once
READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY  # a file that may be odd


BEATS = 256  # names of a directory between two signs of life


class OddFileError(OSError):
    """Something that none of our daemons makes has the name of a file of ours."""


def own_mode(path: str) -> int:
    """Return the mode for our file ``path``: a group that may write to its directory is our daemons' group."""
    shared = os.stat(os.path.dirname(path)).st_mode & stat.S_IWGRP
    return 0o660 if shared else 0o600


def open_own(path: str, flags: int) -> int:
    """Open a file that several of our daemons use; make it where there is none."""
    mode = own_mode(path)
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    found = os.fstat(descriptor)
    if stat.S_IMODE(found.st_mode) != mode and found.st_uid == os.geteuid():
        os.fchmod(descriptor, mode)  # whatever the umask is
    return descriptor


def write_private(
    path: str,
    data: bytes | Iterable[bytes],
    *,
    mode: int | None = None,
    owner: tuple[int, int] | None = None,
    access: bytes | None = None,
    sync: bool = True,
) -> None:
    """Write a new file under a private name and sync its bytes; replace a leftover of a crash under that name.

    ``data`` may come in pieces. Without a ``mode`` all our daemons may read and write the file. ``access`` is an access
    control list (:mod:`spoold.host.acl`) in place of a mode. The file is given to ``owner`` (uid, gid) before anyone
    else can see it. Raises PermissionError where this process is not that owner and may not give files away.
    """
    beat()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        remove(path)
        descriptor = os.open(path, flags, 0o600)
    try:
        for piece in (data,) if isinstance(data, bytes) else data:
            view = memoryview(piece)
            while view:
                view = view[os.write(descriptor, view) :]
        if access is not None:
            acl.give(descriptor, access)
        else:
            os.fchmod(descriptor, own_mode(path) if mode is None else mode)  # as long as it is ours
        if owner is not None and owner != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, *owner)
        if sync:
            os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path)  # half a file, on a disk that may be full
        raise
    finally:
        os.close(descriptor)


def publish(private: str, public: str) -> bool:
    """Give the synced file ``private`` its public name; False where that name is taken by something else.

    The private name stays. A call that reports an error may have made the link all the same (NFS lost the reply). So
    what is there decides.
    """
    try:
        os.link(private, public, follow_symlinks=False)
    except OSError as error:
        if same_file(private, public):
            return True
        if isinstance(error, FileExistsError):
            return False
        raise
    return True


def replace(private: str, public: str) -> None:
    """Put ``private`` in the place of ``public``. Only for side files, and for files with one writer.

    A rename that reports an error may have been done all the same. So what is there decides.
    """
    moving = identity(private)
    try:
        os.rename(private, public)
    except OSError:
        there = identity(public)
        if moving is None or there is None or moving[:2] != there[:2]:
            raise


def move(source: str, target: str) -> bool:
    """Rename an entry; False where the source is gone, which means that someone else has it.

    Several processes may try to rename the same entry to the same new name. So after an error nobody can see whose
    rename was done. A rename whose reply was lost counts as nobody's, and the lease on the entry runs out.
    """
    beat()
    try:
        os.rename(source, target)
    except FileNotFoundError:
        return False
    return True


def touch(path: str, at: float | None = None) -> bool:
    """Set the mtime to the file system's own now, or to ``at``; False where the name is gone."""
    try:
        os.utime(path, None if at is None else (at, at), follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def sync_directory(path: str) -> None:
    """Make the names in ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: str) -> None:
    """Remove a file of ours, which may be gone already."""
    beat()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def read(path: str, limit: int = 1 << 31) -> bytes | None:
    """Return the bytes of a file of ours, None where there is none.

    Any of our daemons could put something else in its place. Raises :class:`OddFileError` for something that is no
    regular file, which is neither followed nor waited for, and for a file of more than ``limit`` bytes.
    """
    beat()
    try:
        descriptor = os.open(path, READING)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, or a socket or a device that is not there
            raise OddFileError(error.errno, "not a regular file", path) from error
        raise
    try:
        return _read_regular(descriptor, path, limit)
    finally:
        os.close(descriptor)


def read_kept(kept: io.FileIO) -> bytes:
    """Return the bytes of a file that is kept open, from its present position on; raises as :func:`read` does."""
    beat()
    return _read_regular(kept.fileno(), str(kept.name), 1 << 31)


def _read_regular(descriptor: int, path: str, limit: int) -> bytes:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OddFileError(errno.EINVAL, "not a regular file", path)
    if found.st_size > limit:
        raise OddFileError(errno.EFBIG, f"more than {limit} bytes", path)
    return read_open(descriptor, limit, found.st_size)


def read_open(descriptor: int, limit: int, size: int) -> bytes:
    """Return at most ``limit`` bytes of an open file, from its present position on.

    ``size`` is how many bytes it had when it was looked at. Where that is still so, one call reads up to ``PIECE``.
    """
    parts = [os.read(descriptor, min(size, PIECE) + 1)] if size < limit else []
    if parts and len(parts[0]) == size:
        return parts[0]
    left = limit - sum(map(len, parts))
    while left > 0 and (part := os.read(descriptor, min(left, PIECE))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def keep_open(path: str) -> io.FileIO | None:
    """Open a file of ours, so that no other file gets its inode number while it is open; None where there is none."""
    try:
        return io.FileIO(os.open(path, READING))
    except FileNotFoundError:
        return None


def stands_for(path: str, kept: io.FileIO) -> bool:
    """Tell whether ``path`` is a name of the file that is kept open."""
    try:
        named = os.lstat(path)
    except FileNotFoundError:
        return False
    try:
        found = os.fstat(kept.fileno())
    except OSError as error:
        if error.errno == errno.ESTALE:  # the server does not have this file any more: another one took the name
            return False
        raise
    return (named.st_dev, named.st_ino) == (found.st_dev, found.st_ino)


def note(path: str, text: str, private: str = "", *, like: str = "") -> bool:
    """Leave a short text as the target of a symbolic link, where one look finds it; False where something else is.

    With a ``private`` name the note is made under that name first, and then replaces what is there. It is not synced.
    ``like`` may be the path of a note of ours with the same text: a second name of that note takes no inode.
    """
    beat()
    if like and _note_again(path, text, like):
        return True
    try:
        os.symlink(text, private or path)
    except FileExistsError:
        if noted(private or path) != text:
            return False
    if private:
        replace(private, path)
    return True


def _note_again(path: str, text: str, like: str) -> bool:
    """Make ``path`` a second name of the note ``like``; False where that fails, or ``like`` has another text by now."""
    try:
        os.link(like, path, follow_symlinks=False)
    except OSError:  # ``like`` is gone, has all the names it can, or is on a file system without second names for it
        return False
    if noted(path) == text:
        return True
    remove(path)
    return False


def noted(path: str) -> str | None:
    """Return the text that was left at ``path``, None where there is none; raises OSError for what is no link."""
    beat()
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return None


def same_file(one: str, other: str) -> bool:
    """Tell whether two names stand for one file."""
    try:
        first, second = os.lstat(one), os.lstat(other)
    except FileNotFoundError:
        return False
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def exists(path: str) -> bool:
    """Tell whether there is anything under that name, also a link to nowhere.

    Raises OSError where that cannot be seen (``os.path.lexists`` says no), since callers remove or remake what is gone.
    """
    beat()
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def mtime(path: str) -> float | None:
    """Return the mtime in seconds since the epoch, None where the name is gone."""
    beat()
    try:
        return os.lstat(path).st_mtime
    except FileNotFoundError:
        return None


def scan(directory: str) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a directory, in no order; those that come or go meanwhile may be among them or not."""
    with os.scandir(directory) as found:
        for number, entry in enumerate(found):
            if number % BEATS == 0:
                beat()
            yield entry


def names(directory: str) -> list[str]:
    """Return the names in a directory, in no order."""
    beat()
    return os.listdir(directory)
