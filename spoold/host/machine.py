"""What the machine says of itself. The functions only look, and need no right but to read."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import math
import os
import re
import socket
import struct
import sys
import time
from pathlib import Path
from typing import NamedTuple

REMOTE = re.compile(
    r"nfs4?|cifs|smb3?|ceph|lustre|glusterfs|9p|beegfs|gpfs|ocfs2|gfs2|afs|fuse\.(sshfs|glusterfs|ceph.*)"
)
SHOWN = ("hidepid=0", "hidepid=off")
QUOTACTL_FD = 443  # on all machines
XGETQSTAT, USRQUOTA, UDQ_ENFD = 0x5805, 0, 2
ESCAPED = re.compile(r"\\([0-7]{3})")  # how /proc/self/mountinfo writes a space, a tab, a newline and a backslash

# Of the kernel's linux/netlink.h, linux/sock_diag.h and linux/inet_diag.h; SKMEMINFO is a bit.
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, REQUEST_AND_DUMP, SKMEMINFO = 4, 20, 0x301, 1 << 6
NLMSG_ERROR, NLMSG_DONE = 2, 3
IP = (6, 17)  # TCP and UDP


class Mount(NamedTuple):
    """The file system that a path is on."""

    point: str
    kind: str

    @property
    def remote(self) -> bool:
        """Tell whether other hosts may write to it without this kernel's notice."""
        return bool(REMOTE.fullmatch(self.kind))


class Room(NamedTuple):
    """What an ordinary user has free on a file system; ``inodes`` is None where there is no bound."""

    bytes: int
    share: float
    inodes: int | None


class Load:
    """How busy the CPUs are; see /proc/stat in proc(5)."""

    INTERVAL = 0.25  # seconds between looks, at least: a shorter time says little
    STALE = 2.0  # seconds after which the former look says nothing about now

    def __init__(self) -> None:
        self._looked, self._counts, self._idle = 0.0, (0, 0), 0.0

    def idle(self) -> float:
        """Return the share of all CPU time that was unused lately; 0 where that is not known, or not yet."""
        now = time.monotonic()
        if now - self._looked < self.INTERVAL:
            return self._idle
        counts = _cpu_ticks()
        passed = counts[1] - self._counts[1]
        known = now - self._looked < self.STALE and passed > 0
        self._idle = (counts[0] - self._counts[0]) / passed if known else 0.0
        self._looked, self._counts = now, counts
        return self._idle


def _cpu_ticks() -> tuple[int, int]:
    """Return for how many ticks the CPUs have been idle, and how many ticks there were in all; 0 where unknown."""
    try:
        with open("/proc/stat", "rb") as file:
            user, nice, system, idle, waits, *rest = map(int, file.readline().split()[1:9])
    except (OSError, ValueError):
        return 0, 0
    return idle + waits, user + nice + system + idle + waits + sum(rest)


@functools.cache
def boot_id() -> str:
    """Return the id that tells this run of this kernel from all others; "" where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@functools.cache
def host_name() -> str:
    """Return what tells this host from others, also after a reboot: its name, and its id from /etc/machine-id."""
    try:
        number = Path("/etc/machine-id").read_text().strip()
    except OSError:
        number = ""
    return f"{os.uname().nodename} {number}".strip()


def sysctl(name: str) -> str:
    """Return a setting of the kernel; "" where there is none of that name."""
    try:
        return Path("/proc/sys", name.replace(".", "/")).read_text().strip()
    except OSError:
        return ""


def hides_processes() -> bool:
    """Tell whether the mount option hidepid keeps users from looking into each other's processes, see proc(5)."""
    found = ""
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split(" ")[4] == "/proc":
            found = rest.split(" ")[2]  # the last mount lies on top
    return any(option.startswith("hidepid=") and option not in SHOWN for option in found.split(","))


def cpus() -> list[int]:
    """Return the numbers of the CPUs that this process, and so all that it starts, may run on."""
    return sorted(os.sched_getaffinity(0))


def memory() -> int:
    """Return the bytes of memory that this host has, or in a container those that it may take if they are fewer."""
    sizes = [int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]) * 1024]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # on v2 a host's root group has no such file; "max" is no number
            sizes.append(int(Path("/sys/fs/cgroup", name).read_text()))
    return min(sizes)


def mount_of(path: str) -> Mount:
    """Return the mount that ``path`` is on."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    real, found = os.path.realpath(path), Mount("", "unknown")
    for line in os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).split("\n")[:-1]:
        fields, _, rest = line.partition(" - ")
        point = ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), fields.split(" ")[4])
        below = os.path.commonpath([point, real]) == point
        # Some file systems (btrfs) show another device here than stat(2) does: then the nearest mount point is right.
        if below and (fields.split(" ")[2] == wanted or len(point) >= len(found.point)):
            found = Mount(point, rest.split(" ")[0])
    return found


def room(path: str) -> Room:
    """Return what is free on the file system of ``path``."""
    status = os.statvfs(path)
    return Room(
        status.f_bavail * status.f_frsize,
        status.f_bavail / max(1, status.f_blocks),
        status.f_favail if status.f_files else None,
    )


def capacity(path: str) -> tuple[float, float]:
    """Return how many bytes and inodes the file system of ``path`` has, infinity for what it does not tell."""
    status = os.statvfs(path)
    return status.f_blocks * status.f_frsize or math.inf, status.f_files or math.inf


def lacking(path: str, min_bytes: float, min_inodes: float, most: float) -> tuple[float, float]:
    """Return how many bytes and inodes the file system of ``path`` lacks until enough is free.

    It is enough when the share ``most`` of all is free, whatever the minima are.
    """
    status = os.statvfs(path)
    bytes_, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    inodes = min(min_inodes, status.f_files * most) - status.f_favail if status.f_files else 0
    return max(0.0, min(min_bytes, bytes_ * most) - free), max(0.0, inodes)


def shortage(path: str, min_bytes: float, min_inodes: float, most: float) -> str:
    """Say in words what is short on the file system of ``path``, "" where enough is free.

    It is enough when the share ``most`` of all is free, whatever the minima are.
    """
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    if free < min(min_bytes, status.f_blocks * status.f_frsize * most):
        return f"{free >> 20} MiB of disk are free for {path}"
    if status.f_files and status.f_favail < min(min_inodes, status.f_files * most):
        return f"{status.f_favail} inodes are free for {path}"
    return ""


def user_quotas(path: str) -> bool | None:
    """Tell whether quotas of users are in force where ``path`` is; None where this kernel does not say.

    It does not say so before Linux 5.14, or where the disk is another host's. See quotactl(2), and xfs_quota(8) for
    the structure, which the kernel fills in for other file systems as well.
    """
    libc, state = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(256)

    def ask(descriptor: int) -> int:
        """Return the number of the error, 0 for none."""
        done = libc.syscall(QUOTACTL_FD, descriptor, XGETQSTAT << 8 | USRQUOTA, 0, state)
        return ctypes.get_errno() if done != 0 else 0

    if mount_of(path).remote or ask(-1) != errno.EBADF:  # a kernel that has the call answers this
        return None
    directory = os.open(path, os.O_PATH | os.O_DIRECTORY)
    error = ask(directory)
    os.close(directory)
    return not error and bool(int.from_bytes(state.raw[2:4], sys.byteorder) & UDQ_ENFD)


def lock_holders(path: str) -> list[int] | None:
    """Return the ids of the processes that hold a flock(2) on ``path``; None where that cannot be known."""
    try:
        status, lines = os.stat(path), Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    held = [line.split() for line in lines]
    return [int(words[4]) for words in held if "->" not in words and words[1] == "FLOCK" and words[5] == wanted]


def tells_of_sockets() -> bool:
    """Tell whether the kernel says what TCP and UDP sockets hold, see sock_diag(7)."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as asked:
            return all(
                _tells_of(asked, family, kind) for family in (socket.AF_INET, socket.AF_INET6) for kind in (6, 17)
            )
    except OSError:
        return False


def _tells_of(asked: socket.socket, family: int, protocol: int) -> bool:
    """Ask for all sockets of a kind; tell whether the answer was no error."""
    body = struct.pack("=BBBBI48x", family, protocol, SKMEMINFO, 0, 0xFFFFFFFF)
    asked.send(struct.pack("=IHHII", 16 + len(body), SOCK_DIAG_BY_FAMILY, REQUEST_AND_DUMP, 0, 0) + body)
    while True:
        answer = asked.recv(65536)
        while answer:
            size, kind = struct.unpack_from("=IH", answer)
            if kind in (NLMSG_ERROR, NLMSG_DONE):
                return bool(struct.unpack_from("=i", answer, 16)[0] == 0)
            answer = answer[(size + 3) & ~3 :]
