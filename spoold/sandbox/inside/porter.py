"""The porter: gives a waiting container a Nix store that holds only what its job may see; see ``view`` on the host.

It is not the supervisor and sees no job. It runs in a container of its own, among the processes of the engine's host
and with the right to mount, and takes orders from the executor alone. An order names the first process of a container
that waits, the container, and store paths. Nothing of a job runs in there yet, so nobody can play tricks on the mounts.

Theory of operation. The container was made with the whole store at /nix/store, read-only. The porter enters its mount
namespace, clones a mount for each path out of that one, takes the whole store away, and puts a small tmpfs in its place
onto which the clones are moved. What is not in the order is then nowhere in the namespace, whatever becomes of the job.

A process id may have been given to somebody else: the id is turned into a descriptor once, and what that stands for is
checked to be in the container's cgroup.
"""

from __future__ import annotations

import ctypes
import os
import resource

from .supervisor import ready
from .wire import GoneError, Host

TYPE_CHECKING = False  # importing typing takes too long here
if TYPE_CHECKING:
    from typing import Any

STORE = b"/nix/store"
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442  # the same on all machines
CLONE_NEWNS = 0x20000
AT_FDCWD, AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW = -100, 0x1000, 0x100
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC, MOVE_MOUNT_F_EMPTY_PATH = 1, os.O_CLOEXEC, 4
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 1 << 18
MNT_DETACH = 2
CALM = MS_NOSUID | MS_NODEV | MS_NOEXEC
READ_ONLY = b"".join(n.to_bytes(8, "little") for n in (1 | 2 | 4, 0, MS_PRIVATE, 0))  # mount_attr: ro, nosuid, nodev
S_IFMT, S_IFDIR, S_IFLNK = 0o170000, 0o040000, 0o120000

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Carry out orders until the host closes its side."""
    host = Host()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    host.send(ready())
    try:
        while True:
            host.send(_carry_out(host.message(), home))
    except GoneError:
        os._exit(0)


def _carry_out(order: dict[str, Any], home: int) -> dict[str, object]:
    try:
        namespace = _find(order["pid"], order["container"], home)
    except (OSError, ValueError) as error:
        return {"event": "gone", "reason": str(error)}
    try:
        _call(libc.setns, namespace, CLONE_NEWNS)
        try:
            _show(order["paths"])
        finally:
            _call(libc.setns, home, CLONE_NEWNS)
    except OSError as error:
        name = error.filename.decode() if isinstance(error.filename, bytes) else ""
        return {"event": "failed", "reason": f"{name}: {error.strerror}"}
    finally:
        os.close(namespace)
    return {"event": "shown"}


def _find(pid: int, container: bytes, home: int) -> int:
    """Return a descriptor of the mount namespace of ``pid``, which must be in the cgroup of ``container``."""
    process = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        cgroup = os.open("cgroup", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
        try:
            if container not in os.read(cgroup, 1 << 16):
                raise ValueError("the process is not the container's")
        finally:
            os.close(cgroup)
        namespace = os.open("ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    finally:
        os.close(process)
    if os.fstat(namespace).st_ino == os.fstat(home).st_ino:
        os.close(namespace)
        raise ValueError("the process has no mounts of its own")
    return namespace


def _show(names: list[bytes]) -> None:
    """In the container's namespace, put a view of ``names`` in the store's place."""
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
        _call(libc.umount2, STORE, MNT_DETACH)
        room = b"mode=0755,size=1m,nr_inodes=%d" % (len(names) + 16)
        _call(libc.mount, b"tmpfs", STORE, b"tmpfs", CALM, room)
        for name, target in links:
            os.symlink(target, STORE + b"/" + name)
        for name, tree in trees:
            _attach(tree, STORE + b"/" + name, directory=kinds[name] == S_IFDIR)
        os.chmod(STORE, 0o555)  # noqa: S103 - everybody may list it
        _call(libc.mount, None, STORE, None, MS_REMOUNT | MS_RDONLY | CALM, None)
        _call(libc.mount, None, STORE, None, MS_REMOUNT | MS_BIND | MS_RDONLY | CALM, None)
    finally:
        for _, tree in trees:
            os.close(tree)
        os.close(store)


def _clone(store: int, name: bytes) -> int:
    tree = _call(libc.syscall, OPEN_TREE, store, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW)
    _call(libc.syscall, MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, READ_ONLY, len(READ_ONLY))
    return tree


def _attach(tree: int, target: bytes, *, directory: bool) -> None:
    if directory:
        os.mkdir(target, 0o555)
    else:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    _call(libc.syscall, MOVE_MOUNT, tree, b"", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH)


def _call(function: Any, *arguments: object) -> int:
    result: int = function(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        name = next((argument for argument in arguments if isinstance(argument, bytes) and argument), b"")
        raise OSError(number, os.strerror(number), name)
    return result
