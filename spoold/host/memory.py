"""The memory of this process: what a large message took goes back to the kernel once it is not needed any more.

When a large piece is freed for the first time, glibc raises the size from which it maps pieces by themselves, up to
32 MiB. Later large pieces lie in its arenas. Each thread may have an arena, and only the first one is ever cut at its
end. So an executor that had answered a few requests of 16 MiB kept 64 MB and more for ever. Here all threads share one
arena, and glibc is told to give memory back when nothing large is going on. Another way is to forbid glibc to raise
that size (M_MMAP_THRESHOLD). It costs too much: each large piece is faulted in anew, and intake and executor took 1.7
times the CPU for such a request. See mallopt(3), malloc_trim(3).

With another libc none of this is done.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

MUCH, LITTLE = 2 << 20, 1 << 20  # bytes that are worth giving back; bytes of growth that count as none
PAGE = os.sysconf("SC_PAGE_SIZE")
M_ARENA_MAX = -8


def share_arena() -> None:
    """Make all threads that begin from now on share one arena."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def give_back() -> None:
    """Give back to the kernel the freed memory that the C library has kept."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


class Unused:
    """Gives unused memory back. ``step`` is called now and then, and looks whether there is some."""

    def __init__(self) -> None:
        self._least = self._before = resident()
        self._still = 0  # looks since it last grew

    def step(self) -> None:
        """Give memory back at the 1st, 2nd, 4th, 8th look since this process grew, if it is larger than it once was.

        Memory that is in use at one look may be free at the next. A process that needs all of it is asked ever less
        often.
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
