"""Calls of the kernel that Python has no words for: namespaces, mounts, capabilities."""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False  # importing typing takes too long here
if TYPE_CHECKING:
    from typing import Any

CLONE = {"x86_64": 56, "aarch64": 220}
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442  # the same on all machines
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER = 0x20000, 0x4000000, 0x8000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWCGROUP = 0x20000000, 0x40000000, 0x2000000
AT_FDCWD, AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW = -100, 0x1000, 0x100
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC, MOVE_MOUNT_F_EMPTY_PATH = 1, os.O_CLOEXEC, 4
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 1 << 18
MNT_DETACH = 2
PR_SET_DUMPABLE, PR_CAPBSET_DROP = 4, 24
SIGCHLD = 17  # the same on all machines, and in the low bits of the flags of a clone
CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_LAST = 5, 6, 7, 63
CAPABILITIES_V3 = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)


def call(function: Any, *arguments: object) -> int:
    """Call a function of the C library; raise OSError, with the path that it was about, where that returns -1."""
    result: int = function(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        name = next((argument for argument in arguments if isinstance(argument, bytes) and argument), b"")
        raise OSError(number, os.strerror(number), name)
    return result


def clone(flags: int) -> int:
    """Fork into new namespaces; fit for a process with one thread, since nothing of Python's own is run."""
    return call(libc.syscall, CLONE[os.uname().machine], flags, 0, 0, 0, 0)


def set_capabilities(*kept: int) -> None:
    """Keep these capabilities, as permitted and effective, and no others."""
    mask = sum(1 << number for number in kept)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = b"".join(n.to_bytes(4, "little") for n in (CAPABILITIES_V3, 0))
    call(libc.capset, header, b"".join(n.to_bytes(4, "little") for n in (low, low, 0, high, high, 0)))


def drop_bounding_set(*kept: int) -> None:
    """Let no program that is started from here on gain any other capability."""
    for number in range(CAP_LAST + 1):
        if number not in kept and libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            return  # the last one that the kernel knows was the one before
