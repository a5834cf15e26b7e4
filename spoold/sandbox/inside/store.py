"""A view of the Nix store in this mount namespace: a read-only tmpfs with a mount for each path that a job may see.

The mounts are of an overlay of this namespace's own, whose lowest layer is the store.
"""

from __future__ import annotations

import errno
import os

from .kernel import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
    MNT_DETACH,
    MOUNT_SETATTR,
    MOVE_MOUNT,
    MOVE_MOUNT_F_EMPTY_PATH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REMOUNT,
    OPEN_TREE,
    OPEN_TREE_CLOEXEC,
    OPEN_TREE_CLONE,
    call,
    libc,
)

STORE = b"/nix/store"
CALM = MS_NOSUID | MS_NODEV | MS_NOEXEC
READ_ONLY = b"".join(n.to_bytes(8, "little") for n in (1 | 2 | 4, 0, MS_PRIVATE, 0))  # mount_attr: ro, nosuid, nodev
LAYERS = b"lowerdir=%b:/sys/proc/empty" % STORE  # a second one is asked for; see masks
# No overlays at all, none in user namespaces (before Linux 5.11), none on this file system or so deep.
NO_OVERLAY = (errno.ENODEV, errno.EPERM, errno.EINVAL)
S_IFMT, S_IFDIR, S_IFLNK = 0o170000, 0o040000, 0o120000


def mount_view(names: list[bytes], *, unmount: bool) -> None:
    """Put a view of the entries ``names`` in the store's place.

    ``unmount`` takes the whole store away; a user namespace may not, and covers it, which who has no capability cannot
    undo either.
    """
    kinds = {name: os.lstat(_inside(name)).st_mode & S_IFMT for name in names}
    # A link has nothing to mount, and says nothing but where it goes.
    links = [(name, os.readlink(_inside(name))) for name in names if kinds[name] == S_IFLNK]
    trees: list[tuple[bytes, int]] = []
    try:
        source = _layer([name for name in names if kinds[name] == S_IFDIR])
        for name in (name for name in names if kinds[name] != S_IFLNK):
            trees.append((name, _clone(source + b"/" + name)))  # noqa: PERF401 - all are closed
        if unmount:
            call(libc.umount2, STORE, MNT_DETACH)
        room = b"mode=0755,size=1m,nr_inodes=%d" % (len(names) + 16)
        call(libc.mount, b"tmpfs", STORE, b"tmpfs", CALM, room)
        for name, target in links:
            os.symlink(target, _inside(name))
        for name, tree in trees:
            _attach(tree, _inside(name), directory=kinds[name] == S_IFDIR)
        os.chmod(STORE, 0o555)  # noqa: S103 - everybody may list it
        call(libc.mount, None, STORE, None, MS_REMOUNT | MS_RDONLY | CALM, None)
        call(libc.mount, None, STORE, None, MS_REMOUNT | MS_BIND | MS_RDONLY | CALM, None)
    finally:
        for _, tree in trees:
            os.close(tree)


def _layer(directories: list[bytes]) -> bytes:
    """Return where a layer over the store is that changes nothing; the store itself where this kernel has none for us.

    A file of the layer is this namespace's own, where locks and watches are concerned. Else what one job locks another
    would find locked, and a watch would tell what others run. Memory and disk have it once all the same. The layer lies
    on one of the ``directories`` of the store, so it goes with it.
    """
    if not directories:
        return STORE
    place = _inside(directories[0])
    try:
        call(libc.mount, b"overlay", place, b"overlay", MS_RDONLY | MS_NOSUID | MS_NODEV, LAYERS)
    except OSError as error:
        if error.errno not in NO_OVERLAY:
            raise
        return STORE
    return place


def _inside(name: bytes) -> bytes:
    return STORE + b"/" + name


def _clone(path: bytes) -> int:
    tree = call(libc.syscall, OPEN_TREE, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW)
    call(libc.syscall, MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, READ_ONLY, len(READ_ONLY))
    return tree


def _attach(tree: int, target: bytes, *, directory: bool) -> None:
    if directory:
        os.mkdir(target, 0o555)
    else:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    call(libc.syscall, MOVE_MOUNT, tree, b"", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH)
