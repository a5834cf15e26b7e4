"""Clocks: the monotonic one for durations, and for ages of entries the file system's, never the machine's own.

Spec: spool-layout.md, "The mtime rule". On a spool that another host serves, mtimes are that host's times. To know how
old an entry is, the clock touches a probe file there and reads its mtime back.
"""

from __future__ import annotations

import math
import os
import time

from spoold.host import fsops

OFTEN = 1.0  # seconds that a reading of the file system's clock is good for times that are noted
TICK = 0.02  # seconds by which the mtime of a file may be behind: the kernel's clock for files goes by ticks


class Clock:
    """The clocks for one spool. ``probe`` is the path of a file that this process may create and touch."""

    def __init__(self, probe: str) -> None:
        self._probe = probe
        self._ahead = time.time() - time.monotonic()  # seconds from the monotonic clock to the file system's
        self._asked = -math.inf  # when that was last read, on the monotonic clock

    def monotonic(self) -> float:
        """Return seconds that never go back, for durations."""
        return time.monotonic()

    def worked(self) -> float:
        """Return the seconds of CPU time that this thread has taken, to tell what things cost."""
        return time.thread_time()

    def file_system(self) -> float:
        """Return the file system's now, in seconds since the epoch."""
        began = time.monotonic()
        if not fsops.touch(self._probe):
            os.close(fsops.open_own(self._probe, os.O_WRONLY))
            fsops.touch(self._probe)
        found = fsops.mtime(self._probe)
        now = time.time() if found is None else found
        self._asked = time.monotonic()
        # ``now`` is the time of some moment since ``began``, and this process may have stood still meanwhile. So the
        # offset is known only within bounds. The former offset stays while it is within them, so that what comes later
        # never gets an earlier time.
        if not now - self._asked <= self._ahead <= now - began + TICK:
            self._ahead = now - self._asked
        return now

    def arrival(self) -> float:
        """Return the file system's now by a reading that is at most a second old, for times that are not compared."""
        if time.monotonic() >= self._asked + OFTEN:
            self.file_system()
        return self.nearly()

    def nearly(self) -> float:
        """Return the file system's now without a reading: as far as the last reading tells it."""
        return self._ahead + time.monotonic()
