"""What the kernel counts for the whole container: CPU, memory, kills for want of memory; cgroup v1 or v2.

A peak counts from the start of the container. Where ``peaks`` could open the file to write, it can begin anew.
"""

from __future__ import annotations

import os
import time

KERNEL = (b"kernel_stack", b"pagetables", b"sec_pagetables", b"percpu", b"slab")  # what "kernel" sums since Linux 5.18


class Memory:
    """What the container holds at an instant, in bytes.

    ``heap`` and ``files`` (in memory) are what nothing but a kill can free, ``cache`` is of files that are not in
    memory alone, ``kernel`` the kernel's own for its processes. ``usage`` is all of these. It is counted ahead of its
    use, by some pages on each CPU. All but ``usage`` may be a little late on many CPUs, on v1 but for ``kernel``.
    """

    def __init__(self, *, heap: int, files: int, cache: int, kernel: int, usage: int) -> None:
        self.heap, self.files, self.cache, self.kernel, self.usage = heap, files, cache, kernel, usage


class Counters:
    """The open counter files; what a host does not have reads as zero."""

    V1 = (
        "cpuacct/cpuacct.usage",
        "memory/memory.stat",
        "memory/memory.oom_control",
        "memory/memory.usage_in_bytes",
        "memory/memory.kmem.usage_in_bytes",
    )
    V2 = ("cpu.stat", "memory.stat", "memory.events", "memory.current")
    PEAKS_V1 = ("memory/memory.max_usage_in_bytes", "memory/memory.kmem.max_usage_in_bytes")
    PEAKS_V2 = ("memory.peak",)

    def __init__(self, root: str = "/sys/fs/cgroup") -> None:
        self.v2 = os.path.exists(f"{root}/cgroup.controllers")
        self._files = [_open(f"{root}/{name}") for name in (self.V2 if self.v2 else self.V1)]
        self._peaks = [_open(f"{root}/{name}") for name in (self.PEAKS_V2 if self.v2 else self.PEAKS_V1)]
        self.resets = False

    def _read(self, number: int) -> bytes:
        return _pread(self._files[number])

    def cpu(self) -> int | None:
        """Return the job's CPU time in ns (the supervisor's own is taken off), or None where nothing counts it."""
        text = self._read(0)
        total = _field(text, b"usage_usec") * 1000 if self.v2 else int(text or 0)
        return total - time.process_time_ns() if total else None

    def memory(self) -> Memory:
        """Return what the container holds now. The exact counts come first: what grows meanwhile is not in them."""
        usage = int(self._read(3) or 0)
        kernel = 0 if self.v2 else int(self._read(4) or 0)
        text = self._read(1)
        files = _field(text, b"shmem")
        if self.v2:
            heap, cache = _field(text, b"anon"), _field(text, b"file") - files
            kernel = _field(text, b"kernel") or sum(_field(text, name) for name in KERNEL)
            kernel += _field(text, b"sock")
        else:
            heap, cache = _field(text, b"rss"), _field(text, b"cache") - files
        return Memory(heap=heap, files=files, cache=cache, kernel=kernel, usage=usage or heap + files + cache + kernel)

    def begin_peaks(self, opened: list[int]) -> None:
        """Read the peaks from files that were ``opened`` to be written to, where that resets them."""
        if not self.resets and opened and all(_reset(file) for file in opened):
            self._peaks, self.resets = opened, True

    def peaks(self) -> tuple[int, int]:
        """Return the highest usage, and of the kernel's own, 0 where nobody tells; since the last call if they reset.

        Else since the container began.
        """
        most = [int(_pread(file) or 0) for file in self._peaks]
        if self.resets:
            for file in self._peaks:
                _reset(file)
        return most[0], sum(most[1:])

    def oom_kills(self) -> int:
        """Return how many processes the kernel has killed for want of memory."""
        return _field(self._read(2), b"oom_kill")


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _pread(file: int) -> bytes:
    try:
        return os.pread(file, 8192, 0)
    except OSError:
        return b""


def _reset(file: int) -> bool:
    """Have a peak begin anew; tell whether the kernel did."""
    try:
        return os.pwrite(file, b"0", 0) > 0
    except OSError:
        return False


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
