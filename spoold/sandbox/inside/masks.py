"""What the kernel tells of the host, taken out of a job's sight: /sys, and what of /proc is not about processes.

Theory of operation. These files tell one job of another, or of the host: how busy it is, what its disks do, how many
containers there are, how much memory the last job of this container took. ``hide`` empties what no program of a job
needs. A cell does that in its own /proc; in a container of one job the engine does. ``cover`` does the
rest, in the mount namespace that it is called in: a cell calls it for itself, and the porter for a container of one
job. It puts a small file system in the place of /sys, and files into /proc that say nothing of the host where programs
fail without any. Copies of the image's own files take the place of those that the engine mounts into /etc from the
host's disk. What is left, since programs need it: /proc/meminfo, /proc/uptime, and what sysinfo(2) says.

In the new /sys are the numbers of the CPUs, and the memory limits, by which some runtimes choose the size of their
heap. They are the kernel's own files, so they are right whenever a limit is changed. The control group's other files
are counters.
"""

from __future__ import annotations

import os

from . import peaks
from .kernel import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REMOUNT, call, libc

CALM = MS_NOSUID | MS_NODEV | MS_NOEXEC
# What only root may read is closed to jobs anyway; some engines hide a part of that, and so do we.
HIDDEN_FILES = tuple(
    f"/proc/{name}"
    for name in (
        *("bootconfig", "buddyinfo", "cmdline", "diskstats", "interrupts", "kcore", "key-users", "keys"),
        *("latency_stats", "locks", "mdstat", "modules", "partitions", "sched_debug", "schedstat", "softirqs", "swaps"),
        *("sysrq-trigger", "timer_list", "timer_stats", "zoneinfo"),
        *("sys/fs/aio-nr", "sys/fs/dentry-state", "sys/fs/file-nr", "sys/fs/inode-nr", "sys/fs/inode-state"),
        *("sys/kernel/pty/nr", "sys/kernel/random/entropy_avail"),
    )
)
# What passes through pseudo-terminals is work of the kernel's own threads, for which no job could be charged, and there
# is one number of them for all containers: so there are none.
HIDDEN_DIRECTORIES = (
    *(f"/proc/{name}" for name in ("acpi", "asound", "bus", "driver", "fs", "irq", "pressure", "scsi", "sys/fs/quota")),
    "/dev/pts",
)
V2 = ("cgroup.controllers", "memory.max", "memory.high")
V1 = ("memory/memory.limit_in_bytes", "memory/memory.soft_limit_in_bytes")
CPUS = "devices/system/cpu"
GROUP = "fs/cgroup"
ETC = ("hostname", "hosts", "resolv.conf")  # what an engine mounts over the image's own
KEPT = "/spoold/etc"  # where the image has them too
DIRECTORIES = ("devices", "devices/system", CPUS, "fs", GROUP, "proc", "proc/empty", "etc")
EMPTY = "/sys/proc/empty"
PLACE = "/tmp"  # where it is put together, before anything of a job is there
SIZE = b"mode=0755,size=128k,nr_inodes=64"
MS_MOVE = 8192


class Masks:
    """What is put there; read from the host's own before anything of a job is here."""

    def __init__(self) -> None:
        self._cpus = {name: _read(f"/sys/{CPUS}/{name}") for name in ("online", "possible", "present")}
        self._etc = {name: _read(f"{KEPT}/{name}") for name in ETC}
        self._files = {
            "cgroups": b"\n".join(map(_alone, _read("/proc/cgroups").split(b"\n"))),
            "loadavg": b"0.00 0.00 0.00 1/1 1\n",
            "stat": b"".join(map(_idle, _read("/proc/stat").splitlines(keepends=True))),
            "vmstat": b"".join(line.split()[0] + b" 0\n" for line in _read("/proc/vmstat").splitlines()),
        }

    def cover(self, *, peaks_too: bool = False) -> None:
        """Put it in its place, in this mount namespace, unless it is there; leave ``peaks`` behind it."""
        if os.path.exists(EMPTY):
            return
        call(libc.mount, b"tmpfs", PLACE.encode(), b"tmpfs", CALM, SIZE)
        for directory in DIRECTORIES:
            os.mkdir(f"{PLACE}/{directory}", 0o755)
        for name, content in self._cpus.items():
            _write(f"{PLACE}/{CPUS}/{name}", content)
        unified = os.path.exists(f"/sys/{GROUP}/{V2[0]}")
        if not unified:
            os.mkdir(f"{PLACE}/{GROUP}/memory", 0o755)
        for name in V2 if unified else V1:
            _write(f"{PLACE}/{GROUP}/{name}", b"")
            if not _bind(f"/sys/{GROUP}/{name}", f"{PLACE}/{GROUP}/{name}"):
                os.unlink(f"{PLACE}/{GROUP}/{name}")
        if peaks_too:
            peaks.leave(PLACE)
        for name, content in self._files.items():
            _write(f"{PLACE}/proc/{name}", content)
            _bind(f"{PLACE}/proc/{name}", f"/proc/{name}")
        for name, content in self._etc.items():
            _write(f"{PLACE}/etc/{name}", content)
            _bind(f"{PLACE}/etc/{name}", f"/etc/{name}")
        call(libc.mount, PLACE.encode(), b"/sys", None, MS_MOVE, None)
        call(libc.mount, None, b"/sys", None, MS_REMOUNT | MS_RDONLY | CALM, None)


def hide() -> None:
    """Empty what no program of a job needs, in this mount namespace, where ``cover`` was called."""
    for path in HIDDEN_FILES:
        _bind("/dev/null", path)
    for path in HIDDEN_DIRECTORIES:
        _bind(EMPTY, path)


def _bind(source: str, target: str) -> bool:
    """Put ``source`` in the place of ``target``; return False where that is not there: no kernel has all of these."""
    try:
        call(libc.mount, source.encode(), target.encode(), None, MS_BIND, None)
    except FileNotFoundError:
        return False
    return True


def _idle(line: bytes) -> bytes:
    """Return a line of /proc/stat of a host that is idle: programs ask it for the CPUs and the time of its start."""
    name, *numbers = line.split()
    if name == b"btime":
        return line
    return b" ".join([name, *(b"0" for _ in (numbers if name.startswith(b"cpu") else numbers[:1]))]) + b"\n"


def _alone(line: bytes) -> bytes:
    """Return a line of /proc/cgroups with one group: programs ask it for the controllers."""
    words = line.split(b"\t")
    return line if line.startswith(b"#") or len(words) != 4 else b"\t".join((*words[:2], b"1", words[3]))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(1 << 20)
    except OSError:
        return b""


def _write(path: str, content: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
    os.write(file, content)
    os.close(file)
