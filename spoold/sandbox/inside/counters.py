"""What the kernel counts for the whole container: CPU, memory, kills for want of memory; cgroup v1 or v2."""

from __future__ import annotations

import os
import time


class Counters:
    """The open counter files; what a host does not have reads as zero."""

    V1 = (
        "cpuacct/cpuacct.usage",
        "memory/memory.stat",
        "memory/memory.max_usage_in_bytes",
        "memory/memory.oom_control",
    )
    V2 = ("cpu.stat", "memory.stat", "memory.peak", "memory.events")

    def __init__(self, root: str = "/sys/fs/cgroup") -> None:
        self.v2 = os.path.exists(f"{root}/cgroup.controllers")
        self.files = [self._open(f"{root}/{name}") for name in (self.V2 if self.v2 else self.V1)]

    @staticmethod
    def _open(path: str) -> int:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return -1

    def _read(self, number: int) -> bytes:
        try:
            return os.pread(self.files[number], 8192, 0)
        except OSError:
            return b""

    def _field(self, number: int, name: bytes) -> int:
        return _field(self._read(number), name)

    def cpu(self) -> int | None:
        """Return the job's CPU time in ns (the supervisor's own is taken off), or None where nothing counts it."""
        total = self._field(0, b"usage_usec") * 1000 if self.v2 else int(self._read(0) or 0)
        return total - time.process_time_ns() if total else None

    def memory(self) -> tuple[int, int, int]:
        """Return the bytes of heap, of files in memory (which nothing but a kill can free either), of cached files."""
        text = self._read(1)
        shared = _field(text, b"shmem")
        heap, files = (b"anon", b"file") if self.v2 else (b"rss", b"cache")
        return _field(text, heap), shared, _field(text, files) - shared

    def peak(self) -> int:
        """Return the highest use of memory so far, caches included."""
        return int(self._read(2) or 0)

    def oom_kills(self) -> int:
        """Return how many processes the kernel has killed for want of memory."""
        return self._field(3, b"oom_kill")


def _field(text: bytes, name: bytes) -> int:
    at = (b"\n" + text).find(b"\n" + name + b" ")
    return int(text[at + len(name) + 1 :].split(b"\n", 1)[0]) if at >= 0 else 0


def memory_limit(root: str = "/sys/fs/cgroup") -> int:
    """Return the container's limit in bytes; a large number where there is none, -1 where it cannot be seen."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            with open(f"{root}/{name}", encoding="ascii") as file:
                said = file.read().strip()
        except OSError:
            continue
        return 2**63 if said == "max" else int(said)
    return -1
