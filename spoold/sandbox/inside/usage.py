"""What a phase has used so far, and which of its limits that passes: time, CPU, and memory.

Theory of operation. The kernel counts for the whole container, so all is told from what was counted before the phase.
The looks decide, some milliseconds apart, and one after the end. What is ours is taken off: the output that we keep,
and our own CPU time. But reading the output is the job's, whose output takes it. ``pages`` tells of memory, and what
sockets hold is added. It is exact to a mebibyte, so a phase is over its limit from a mebibyte above it.
"""

from __future__ import annotations

import time

from .pages import EXACT, Pages
from .room import Room
from .sockets import Sockets

TYPE_CHECKING = False  # importing typing takes too long here
if TYPE_CHECKING:
    from resource import struct_rusage

    from .counters import Counters
    from .messages import Bounds, Hit


class Usage:
    """The use of one phase, from now on. ``hit`` is the limit that was passed, "" while none was.

    Times are nanoseconds, sizes bytes. ``kept`` is the output that we hold, and grows.
    """

    def __init__(self, counters: Counters, limits: Bounds, kept: list[bytearray]) -> None:
        self.counters, self.limits, self.kept = counters, limits, kept
        self.hit: Hit = ""
        self.reaped_cpu = self.looking_cpu = self.draining_cpu = 0
        self.cpu_before = counters.cpu()
        self.oom_before = counters.oom_kills()
        self.pages = Pages(counters)
        self.memory_peak = self.files_at_most = self.held = 0
        self.room = Room()
        self.most_memory = limits.memory + EXACT
        self.sockets = Sockets()
        self.started = time.monotonic_ns()

    def watch(self) -> None:
        """Count our own CPU time from now on."""
        self.watching_since = time.process_time_ns()

    def reaped(self, usage: struct_rusage) -> None:
        """Count a process that has ended."""
        self.reaped_cpu += int((usage.ru_utime + usage.ru_stime) * 1e9)

    def ended(self) -> None:
        """Take the time: the program has ended."""
        self.elapsed = time.monotonic_ns() - self.started

    def oom(self) -> bool:
        """Tell whether the kernel killed something for want of memory."""
        return self.counters.oom_kills() > self.oom_before

    def close(self) -> None:
        """Close what was opened."""
        self.sockets.close()

    def count_draining(self) -> int:
        """Count our own CPU time since the watch began, but for the looks: it is the job's, whose output takes it."""
        now = time.process_time_ns()
        self.draining_cpu = now - self.watching_since - self.looking_cpu
        return now

    def look(self, now: int) -> None:
        """Look at memory, time and CPU; ``now`` is on the monotonic clock, in nanoseconds."""
        began = self.count_draining()
        used = self._memory()
        seen = self.sockets.held()
        used += self.sockets.held(again=True) if used + seen > self.most_memory >= used else seen
        self.memory_peak = max(self.memory_peak, used)
        self.room.look()
        self.elapsed = now - self.started
        if self.memory_peak > self.most_memory or self.oom():
            self.hit = "memory"
        elif self.elapsed >= self.limits.time:
            self.hit = "time"
        elif self._cpu() > self.limits.cpu_time:
            self.hit = "cpu"
        self.looking_cpu += time.process_time_ns() - began

    def account(self) -> tuple[int, int, int]:
        """Return the CPU time, the peak of memory, and the bytes of files in memory that are left.

        A limit that was passed since the last look is ``hit``.
        """
        self.memory_peak = max(self.memory_peak, self._memory())
        self.room.look()
        cpu = self._cpu()
        if self.memory_peak > self.most_memory:
            self.hit = "memory"
        elif not self.hit and self.elapsed > self.limits.time:
            self.hit = "time"
        elif not self.hit and cpu > self.limits.cpu_time:
            self.hit = "cpu"
        return cpu, self.memory_peak, self.held

    def _cpu(self) -> int:
        now = self.counters.cpu()
        used = self.reaped_cpu if now is None or self.cpu_before is None else max(0, now - self.cpu_before)
        return used + self.draining_cpu

    def _memory(self) -> int:
        """See what is held now; return the most that was since the last look, but for sockets."""
        self.held, most = self.pages.look(self._kept())
        self.files_at_most = max(self.files_at_most, self.pages.files)
        return most

    def _kept(self) -> int:
        return sum(len(kept) for kept in self.kept)
