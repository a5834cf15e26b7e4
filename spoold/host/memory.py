"""The memory of this process: what a large message took goes back to the kernel, once it is not needed.

When a large piece is freed for the first time, glibc raises the size from which it maps pieces by themselves, up to
32 MiB. Later large pieces lie in its arenas, of which each thread may have one, and only the first arena is ever cut at
its end. So an executor that had answered a few requests of 16 MiB kept 64 MB and more for ever. Here all threads share
one arena, and glibc is told to give back when nothing large is going on. To forbid it to raise that size instead
(M_MMAP_THRESHOLD) costs too much: each large piece is faulted in anew, and intake and executor took 1.7 times the CPU
for such a request. See mallopt(3), malloc_trim(3).

With another libc nothing of this is done.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

MUCH, LITTLE = 8 << 20, 1 << 20  # bytes that are worth it, and by which a process that stays as it is may grow
PAGE = os.sysconf("SC_PAGE_SIZE")
M_ARENA_MAX = -8


def share_arena() -> None:
    """Have all threads that begin from now on share one arena."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def give_back() -> None:
    """Give back to the kernel what the C library has kept of what was freed."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


class Unused:
    """Gives back what is unused; ``step`` is called now and then, and looks."""

    def __init__(self) -> None:
        self._least = self._before = resident()
        self._still = 0  # looks since it last grew

    def step(self) -> None:
        """Give back where this process is larger than it was once, at the 1st, 2nd, 4th, 8th look since it grew.

        What is in use at one of them may be free at the next. Whoever needs all that they have is asked seldom.
        """
        now = resident()
        self._still = 0 if now > self._before + LITTLE else self._still + 1
        if now > self._least + MUCH and self._still.bit_count() == 1:
            give_back()
            now = resident()
        self._least, self._before = min(self._least, now), now


def resident() -> int:
    """Return the bytes of memory that this process has; see proc_pid_statm(5)."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * PAGE
