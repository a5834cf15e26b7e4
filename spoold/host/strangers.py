"""Files that strangers made among ours: how they are looked at, taken over, and removed.

A client may put anything under a name that we come to: a link, a device, a file that somebody has locked, a directory
of any depth that is closed to us. They may put something else there between two looks. So nothing here follows a link
or waits. Names are opened with O_NOFOLLOW and O_NONBLOCK, and looked at through the descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

import msgspec

from spoold.host import fsops
from spoold.host.attributes import Identity, identity_of
from spoold.host.pulse import beat

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


class Dropped(msgspec.Struct, frozen=True):
    """A file found in the drop box. ``kind`` is ``file``, or names what it is instead. Only a file's ``data`` is read.

    A file that this process may not read is ``UNREADABLE``: root's rights end at a server that squashes root. A file on
    which somebody holds a lease (fcntl(2), F_SETLEASE), so that opening it would mean waiting, is ``LEASED``.
    """

    kind: str
    uid: int
    gid: int
    links: int
    identity: Identity
    data: bytes = b""


def look_at_dropped(path: str, limit: int) -> Dropped | None:
    """Read at most ``limit`` bytes of the file ``path`` that a client dropped; None where it is gone.

    Never follows a link, never blocks, never opens what is not a regular file (opening a device can act on it).
    """
    beat()
    named = look_at_name(path)
    if named is None or named.kind != "file" or named.links > 1:
        return named
    try:
        descriptor = os.open(path, fsops.READING)
    except (PermissionError, BlockingIOError) as error:
        return msgspec.structs.replace(named, kind=LEASED if isinstance(error, BlockingIOError) else UNREADABLE)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):  # gone, or swapped for a link, which the next look will tell
            return None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return _dropped(found)
        return _dropped(found, fsops.read_open(descriptor, limit, found.st_size))
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
    return Dropped(kind, found.st_uid, found.st_gid, found.st_nlink, identity_of(found), data)


def remove_dropped(path: str, dropped: Dropped) -> None:
    """Remove the client's file, unless the name stands for a newer file by now, which gets a look of its own.

    A file system may give the inode number of a file that is gone to the next one. So the owner has to be the same too.
    """
    try:
        now = os.lstat(path)
        if (now.st_dev, now.st_ino, now.st_uid) == (*dropped.identity[:2], dropped.uid):
            os.unlink(path)
    except FileNotFoundError:
        pass


def remove_of(path: str, uid: int) -> bool:
    """Remove a user's file or empty directory ``path``; False where it is gone, or is another user's by now."""
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
    """Remove a directory that a client made if it is empty, else rename it to ``aside``, in the same directory.

    Only its owner may move it into another directory. Raises OSError for what is not a directory, or not any more.
    """
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        fsops.move(f"{path}/", aside)  # with the slash, nothing but a directory moves


def remove_tree(path: str) -> None:
    """Remove a directory that a client made. It may have any depth, be closed to us, and still be in use by them.

    Each directory in it is moved out, to a name beside ``path``, before it is emptied in its turn. So no path leads
    through the client's directories, where they could redirect it, and no path is deep.
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


def seize(name: str, directory: int | None = None) -> int:
    """Take over a directory that a client made, close it to them, and return a descriptor of it.

    It can be moved elsewhere or emptied only once it is ours. Taking over another user's needs CAP_CHOWN and
    CAP_FOWNER. ``directory`` is the descriptor of the directory that it is in. No link is followed.
    """
    with directory_itself(name, within=directory) as itself:
        os.chmod(itself, 0o700)
        os.chown(itself, os.geteuid(), os.getegid())
        return os.open(itself, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@contextlib.contextmanager
def directory_itself(path: str, *, within: int | None = None, follow: bool = False) -> Iterator[str]:
    """Yield a name that stands for the directory ``path`` itself, never for something that takes its place meanwhile.

    ``within`` is the descriptor of the directory that it is in. Raises :class:`NotADirectoryError` for anything else,
    also for a symbolic link, unless ``follow`` is set.
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags, dir_fd=within)  # O_PATH needs no right to read it
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
