"""A view of the Nix store in this mount namespace: a read-only tmpfs with a mount for each path that a job may see."""

from __future__ import annotations

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
S_IFMT, S_IFDIR, S_IFLNK = 0o170000, 0o040000, 0o120000


def show(names: list[bytes], *, unmount: bool) -> None:
    """Put a view of the entries ``names`` in the store's place.

    ``unmount`` takes the whole store away; a user namespace may not, and covers it, which who has no capability cannot
    undo either.
    """
    store = os.open(STORE, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    trees: list[tuple[bytes, int]] = []
    links: list[tuple[bytes, bytes]] = []
    kinds: dict[bytes, int] = {}
    try:
        for name in names:
            kinds[name] = os.lstat(STORE + b"/" + name).st_mode & S_IFMT
            if kinds[name] == S_IFLNK:  # a link has nothing to mount, and says nothing but where it goes
                links.append((name, os.readlink(STORE + b"/" + name)))
            else:
                trees.append((name, _clone(store, name)))
        if unmount:
            call(libc.umount2, STORE, MNT_DETACH)
        room = b"mode=0755,size=1m,nr_inodes=%d" % (len(names) + 16)
        call(libc.mount, b"tmpfs", STORE, b"tmpfs", CALM, room)
        for name, target in links:
            os.symlink(target, STORE + b"/" + name)
        for name, tree in trees:
            _attach(tree, STORE + b"/" + name, directory=kinds[name] == S_IFDIR)
        os.chmod(STORE, 0o555)  # noqa: S103 - everybody may list it
        call(libc.mount, None, STORE, None, MS_REMOUNT | MS_RDONLY | CALM, None)
        call(libc.mount, None, STORE, None, MS_REMOUNT | MS_BIND | MS_RDONLY | CALM, None)
    finally:
        for _, tree in trees:
            os.close(tree)
        os.close(store)


def _clone(store: int, name: bytes) -> int:
    tree = call(libc.syscall, OPEN_TREE, store, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW)
    call(libc.syscall, MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, READ_ONLY, len(READ_ONLY))
    return tree


def _attach(tree: int, target: bytes, *, directory: bool) -> None:
    if directory:
        os.mkdir(target, 0o555)
    else:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    call(libc.syscall, MOVE_MOUNT, tree, b"", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH)
