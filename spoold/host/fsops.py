"""File operations of the spool: each one syscall or a fixed, ordered few.

Spec: spool-layout.md, "Durability". Everything that changes the spool goes through here, so that what is synced and in
which order can be read in one place, and so that a test can stop the process before and after each operation.

Names that clients or jobs could have made are opened with O_NOFOLLOW and O_NONBLOCK and looked at through the
descriptor. Nothing here overwrites: what is public is linked into place, and a link never replaces.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from spoold.host import acl
from spoold.host.pulse import beat


class OddFileError(OSError):
    """Something that none of us makes has the name of a file of ours."""


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
    """What is known of a name: times in seconds since the epoch, the bytes that it takes of the disk (which is not its
    length: see st_blocks in stat(2)), whether it is a directory, and the uid of its owner.
    """

    mtime: float
    ctime: float
    size: int
    directory: bool
    uid: int


class Rights(NamedTuple):
    """Whose a file is and what is allowed: owner, group, the bits of the mode, and its list, None where it has none."""

    uid: int
    gid: int
    mode: int
    access: bytes | None


class Dropped(msgspec.Struct, frozen=True):
    """A file found in the drop box: ``kind`` is ``file``, or what it is instead; ``data`` is read for files only.

    A file that this process may not read is an ``UNREADABLE``: root's rights end at a server that squashes root. One
    that cannot be opened without waiting for whoever holds a lease on it (fcntl(2), F_SETLEASE) is ``LEASED``.
    """

    kind: str
    uid: int
    gid: int
    links: int
    identity: Identity
    data: bytes = b""


BLOCK = 512  # bytes: the unit of st_blocks
UNREADABLE = "file that may not be read"
LEASED = "file on which someone holds a lease"
KINDS = (
    (stat.S_ISREG, "file"),
    (stat.S_ISLNK, "symbolic link"),
    (stat.S_ISDIR, "directory"),
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISBLK, "block device"),
    (stat.S_ISCHR, "character device"),
)


def look_at_dropped(path: str, limit: int) -> Dropped | None:
    """Read at most ``limit`` bytes of the file ``path`` that a client dropped; None where it is gone.

    Never follows a link, never blocks, never opens what is not a regular file (opening a device can act on it).
    """
    beat()
    named = look_at_name(path)
    if named is None or named.kind != "file" or named.links > 1:
        return named
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (PermissionError, BlockingIOError) as error:
        return msgspec.structs.replace(named, kind=LEASED if isinstance(error, BlockingIOError) else UNREADABLE)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):  # gone, or swapped for a link: the next look says so
            return None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return _dropped(found)
        return _dropped(found, _read(descriptor, limit))
    finally:
        os.close(descriptor)


def look_at_name(path: str) -> Dropped | None:
    """Return what a client dropped as ``path`` without opening it; None where it is gone."""
    try:
        return _dropped(os.lstat(path))
    except FileNotFoundError:
        return None


def _dropped(found: os.stat_result, data: bytes = b"") -> Dropped:
    kind = next((word for test, word in KINDS if test(found.st_mode)), "unknown kind of file")
    return Dropped(kind, found.st_uid, found.st_gid, found.st_nlink, _identity(found), data)


def identity(path: str) -> Identity | None:
    """Return what ``path`` stands for now, None where it is gone."""
    beat()
    try:
        return _identity(os.lstat(path))
    except FileNotFoundError:
        return None


def owner(path: str) -> Owned | None:
    """Return who owns what ``path`` stands for, a link itself where it is one; None where it is gone."""
    beat()
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return Owned(found.st_uid, found.st_ctime_ns, found.st_size)


def _identity(found: os.stat_result) -> Identity:
    return Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _read(descriptor: int, limit: int) -> bytes:
    parts = []
    left = limit
    while left > 0 and (part := os.read(descriptor, min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def remove_dropped(path: str, dropped: Dropped) -> None:
    """Remove the client's file, unless the name stands for something newer by now: that will be looked at again.

    A file system may give the number of a file that is gone to the next one, so the owner has to be the same as well.
    """
    try:
        now = os.lstat(path)
        if (now.st_dev, now.st_ino, now.st_uid) == (*dropped.identity[:2], dropped.uid):
            os.unlink(path)
    except FileNotFoundError:
        pass


def remove_of(path: str, uid: int) -> bool:
    """Remove what a user has as ``path``, be it an empty directory; False where it is gone, or another's by now."""
    beat()
    try:
        found = os.lstat(path)
        if found.st_uid != uid:
            return False
        (os.rmdir if stat.S_ISDIR(found.st_mode) else os.unlink)(path)
    except FileNotFoundError:
        return False
    return True


def clear_directory(path: str, aside: str) -> None:
    """Remove a directory that a client made if it is empty, else rename it to ``aside``, which is in the same place.

    Into another place only its owner may move it. What is no directory (any more) stays: raises OSError.
    """
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        move(f"{path}/", aside)  # with the slash it is a directory that moves, or nothing


def own_mode(path: str) -> int:
    """Return the mode of a file of ours called ``path``: whoever may write to its directory is one of us."""
    shared = os.stat(os.path.dirname(path)).st_mode & stat.S_IWGRP
    return 0o660 if shared else 0o600


def open_own(path: str, flags: int) -> int:
    """Open a file of ours that several of us use; it is made where there is none."""
    mode = own_mode(path)
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    found = os.fstat(descriptor)
    if stat.S_IMODE(found.st_mode) != mode and found.st_uid == os.geteuid():
        os.fchmod(descriptor, mode)  # whatever the umask is
    return descriptor


def seize(name: str, directory: int | None = None) -> int:
    """Make a directory that a client made ours and closed to him, and return a descriptor of it.

    To be moved elsewhere, or emptied, it has to be. That takes CAP_CHOWN and CAP_FOWNER where it is another user's.
    ``directory`` is the descriptor of the one that it is in. No link is followed.
    """
    with directory_itself(name, within=directory) as itself:
        os.chmod(itself, 0o700)
        os.chown(itself, os.geteuid(), os.getegid())
        return os.open(itself, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@contextlib.contextmanager
def directory_itself(path: str, *, within: int | None = None, follow: bool = False) -> Iterator[str]:
    """Yield a name by which to look at and change the directory ``path``, and nothing that takes its place meanwhile.

    ``within`` is the descriptor of the one that it is in. Raises :class:`NotADirectoryError` where it is something
    else; a symbolic link is, unless one may ``follow`` it.
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags, dir_fd=within)  # which takes no right to read it
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def remove_tree(path: str) -> None:
    """Remove a directory that a client made: of any depth, closed by him, with him still in it.

    Each directory in it is taken out, to a name beside ``path``, before it is emptied in its turn: so there is no path
    through his directories that he could bend, and no depth.
    """
    todo, taken_out = [path], 0
    while todo:
        top = todo.pop()
        descriptor = seize(top)
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.name, dir_fd=descriptor)
                        continue
                    os.close(seize(entry.name, descriptor))
                    taken_out += 1
                    todo.append(f"{path}~{taken_out}")
                    os.rename(entry.name, todo[-1], src_dir_fd=descriptor)
        finally:
            os.close(descriptor)
        os.rmdir(top)


def write_private(
    path: str,
    data: bytes,
    *,
    mode: int | None = None,
    owner: tuple[int, int] | None = None,
    access: bytes | None = None,
    sync: bool = True,
) -> None:
    """Write a new file under a private name and sync its bytes; a leftover of a crash under that name is replaced.

    Without a ``mode`` all of us may read and write it. ``access`` is a list (:mod:`spoold.host.acl`) in place of a
    mode. ``owner`` (uid, gid) is given the file before anyone else can see it; raises PermissionError where that is not
    allowed to this process and it is not the owner already.
    """
    beat()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        remove(path)
        descriptor = os.open(path, flags, 0o600)
    try:
        view = memoryview(data)
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

    The private name stays. A link that reports an error may have been made all the same (a lost reply on NFS): what
    is there decides.
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
    """Put ``private`` in the place of ``public``: only for side files and for what has one writer.

    A rename that reports an error may have been done all the same: what is there decides.
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

    Many may want the same, under the same new name: so after an error it cannot be seen whose rename it was that was
    done, and one whose answer was lost counts as nobody's. Its lease runs out.
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
    """Remove a file of ours; one that is gone already is fine."""
    beat()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def read(path: str, limit: int = 1 << 31) -> bytes | None:
    """Return the bytes of a file of ours, None where there is none.

    Any of us could put something else in its place: raises :class:`OddFileError` for what is no regular file, which is
    neither followed nor waited for, and for one of more than ``limit`` bytes.
    """
    beat()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a socket, or a device that is not there
            raise OddFileError(error.errno, "not a regular file", path) from error
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OddFileError(errno.EINVAL, "not a regular file", path)
        if found.st_size > limit:
            raise OddFileError(errno.EFBIG, f"more than {limit} bytes", path)
        return _read(descriptor, limit)
    finally:
        os.close(descriptor)


def keep_open(path: str) -> io.FileIO | None:
    """Open a file of ours, so that no other file gets its number while it is open; None where there is none."""
    try:
        return io.FileIO(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY))
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
        if error.errno == errno.ESTALE:  # the server has no such file any more: another one took the name
            return False
        raise
    return (named.st_dev, named.st_ino) == (found.st_dev, found.st_ino)


def note(path: str, text: str, private: str = "") -> bool:
    """Leave a short text where one look finds it, as the target of a symbolic link; False where there is something.

    With a ``private`` name, by which it is made first, it replaces what is there. It is not synced.
    """
    beat()
    try:
        os.symlink(text, private or path)
    except FileExistsError:
        if noted(private or path) != text:
            return False
    if private:
        replace(private, path)
    return True


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

    Where that cannot be seen it raises (``os.path.lexists`` says no): what counts as gone is removed, or made anew.
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


def facts(path: str) -> Facts | None:
    """Return what is known of a name, of a link itself where it is one; None where it is gone."""
    beat()
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    directory = stat.S_ISDIR(found.st_mode)
    return Facts(found.st_mtime, found.st_ctime, found.st_blocks * BLOCK, directory, found.st_uid)


def rights(path: str) -> Rights | None:
    """Return whose a file is and what is allowed; None where it is gone."""
    try:
        found = os.lstat(path)
        return Rights(found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode), acl.of(path))
    except FileNotFoundError:
        return None


def shared_inode(path: str) -> int | None:
    """Return the inode of a file that has other names as well, None where it has not or is gone."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_ino if found.st_nlink > 1 else None


def names(directory: str) -> list[str]:
    """Return the names in a directory, in no order."""
    beat()
    return os.listdir(directory)


@contextlib.contextmanager
def locked(path: str, *, exclusive: bool) -> Iterator[None]:
    """Hold a lock on a file of ours inside the block, shared or exclusive; waits for it (flock(2)).

    It is opened for writing, since NFS makes a lock of its own kind of it, which an exclusive one needs there.
    """
    descriptor = open_own(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)
