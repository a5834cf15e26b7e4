"""The memory of one phase, to within a mebibyte: its anonymous, shared and tmpfs pages, now and at their most.

Theory of operation. The kernel counts the container's use of memory exactly, and remembers its peak. But that is of all
that is charged to the container: also the cache of files, the kernel's own for its processes, and what the supervisor
holds. So at each look the peak since the one before is taken, and from it the most that cache and kernel had in that
time. What is left is the supervisor's, which is known from before the phase, and the job's. The most is taken so that
nobody's memory ever counts as a job's that is not; what a look misses so is what the cache or the kernel's own grew by
in the same milliseconds in which the job reached its peak and left it.

The kernel counts memory ahead of its use, 256 KiB at most on each CPU on which the container runs (AHEAD); half of what
that is on two CPUs is what it is taken for.

A peak that cannot begin anew tells something only where it has risen. One below it, between two looks, is not seen.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing takes too long here
if TYPE_CHECKING:
    from .counters import Counters

AHEAD = 512 * 1024
EXACT = 1024 * 1024  # bytes by which what is told may be wrong: so a phase is over its limit from there on
COARSE = 1024 * 1024  # bytes; a smaller change of the files in memory may be an older one, counted late


class Pages:
    """What a phase holds, from now on; all sizes are bytes."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._top, self._kernel_top = counters.peaks()
        self._last = now = counters.memory()
        self._files = now.files
        held = now.usage - now.cache - now.kernel
        ahead = min(max(0, held - now.heap - now.files), AHEAD)
        self._own = held - ahead + AHEAD // 2

    def look(self, kept: int) -> tuple[int, int]:
        """Return what the phase holds, and the most since the last look; ``kept`` bytes more are the supervisor's."""
        top, kernel = self._counters.peaks()
        before, self._last = self._last, self._counters.memory()
        now = self._last
        most, always = 0, self._counters.resets
        if always or top > self._top:
            of_kernel = max(before.kernel, now.kernel, kernel if always or kernel > self._kernel_top else 0)
            most = top - max(before.cache, now.cache) - of_kernel - self._own
        self._top, self._kernel_top = top, kernel
        if now.files < self._files - COARSE:  # files of an earlier phase that it deletes make no room for more
            self._own -= self._files - now.files
            self._files = now.files
        held = now.usage - now.cache - now.kernel - self._own
        return max(0, held - kept), max(0, held - kept, most - kept)

    @property
    def files(self) -> int:
        """Return the files in memory, and what is shared, that the phase held at the last look."""
        return max(0, self._last.files - self._files)

    @property
    def unseen(self) -> int:
        """Return how much a later phase may hold for a moment without being seen, 0 where all is."""
        if self._counters.resets:
            return 0
        return max(0, self._top - self._last.cache - self._last.kernel - self._own)
