"""The kernel's peaks of memory as files that can be written to, which lets them begin anew.

Theory of operation. The engine mounts a container's control group read-only. The supervisor is root, to whom the files
belong, so all that it lacks is a mount of them that can be written to. A process in a user namespace of its own, which
a container of many jobs may make, gets one (``by_namespace``). In a container of one job the porter leaves one of each
file behind the masks, in a directory that no job can enter (``leave``, ``left``). What is opened so stays open in each
cell, and is closed in the job. It is these files alone, so no limit can be changed with them.

Where none of this works, peaks count from the start of the container, and the looks have to do. On version 2 a file
takes this since Linux 6.12, and not from within a control group namespace where the hierarchy is mounted with
nsdelegate.
"""

from __future__ import annotations

import os

from . import kernel
from .kernel import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_REMOUNT, call, libc

V1 = ("memory.max_usage_in_bytes", "memory.kmem.max_usage_in_bytes")
V2 = ("memory.peak",)
GROUP = "/sys/fs/cgroup"
OWN = "own"  # the directory in the masks' /sys
PLACE = "/tmp"  # where the other process mounts the group, for itself alone
CALM = MS_NOSUID | MS_NODEV | MS_NOEXEC


def leave(place: str) -> None:
    """Leave the files in a directory that is made in ``place``, to be written to; where that fails, not all of them."""
    directory = f"{place}/{OWN}"
    os.mkdir(directory, 0o700)
    unified = _unified()
    for name in V2 if unified else V1:
        path = f"{directory}/{name}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400))
        try:
            source = f"{GROUP}/{name}" if unified else f"{GROUP}/memory/{name}"
            call(libc.mount, source.encode(), path.encode(), None, MS_BIND, None)
            call(libc.mount, None, path.encode(), None, MS_REMOUNT | MS_BIND | CALM, None)
        except OSError:
            return


def left() -> list[int]:
    """Return descriptors of what the porter left, none unless it left all."""
    return _opened(f"/sys/{OWN}", V1) or _opened(f"/sys/{OWN}", V2)


def by_namespace() -> list[int]:
    """Return descriptors of this process's own control group's, by way of another process; none where that fails."""
    kind, options = (b"cgroup2", None) if _unified() else (b"cgroup", _hierarchy())
    told, tell = os.pipe2(os.O_CLOEXEC)
    go, let_go = os.pipe2(os.O_CLOEXEC)
    try:
        other = kernel.clone(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWCGROUP | kernel.SIGCHLD)
    except OSError:
        return []
    if other == 0:
        if libc.mount(kind, PLACE.encode(), kind, CALM, options) == 0:
            os.write(tell, b".")
        os.close(tell)
        os.close(let_go)
        os.read(go, 1)
        os._exit(0)
    os.close(tell)
    mounted = os.read(told, 1)
    opened = _opened(f"/proc/{other}/root{PLACE}", V2 if _unified() else V1) if mounted else []
    for descriptor in (told, go, let_go):
        os.close(descriptor)
    os.waitpid(other, 0)
    return opened


def _unified() -> bool:
    return os.path.exists(f"{GROUP}/cgroup.controllers")


def _hierarchy() -> bytes:
    """Return the controllers that are mounted with that of memory."""
    with open("/proc/self/cgroup", "rb", buffering=0) as file:
        lines = [line.split(b":", 2) for line in file.read(1 << 16).splitlines()]
    return next((line[1] for line in lines if b"memory" in line[1].split(b",")), b"memory")


def _opened(directory: str, names: tuple[str, ...]) -> list[int]:
    opened: list[int] = []
    try:
        for name in names:
            opened.append(os.open(f"{directory}/{name}", os.O_RDWR | os.O_CLOEXEC))  # noqa: PERF401 - all are closed
    except OSError:
        for descriptor in opened:
            os.close(descriptor)
        return []
    return opened
