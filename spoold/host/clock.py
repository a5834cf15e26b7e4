"""Clocks. Durations are monotonic; ages of entries are taken on the file system's clock, never the machine's own.

Spec: spool-layout.md, "The mtime rule". On a spool that another host serves, mtimes are that host's times: to know how
old an entry is, a probe file is touched there and its mtime read back.
"""

from __future__ import annotations

import math
import os
import time

from spoold.host import fsops

OFTEN = 1.0  # seconds
TICK = 0.02  # seconds by which the time of a file may be behind: the kernel's clock for it goes by ticks


class Clock:
    """The time for one spool; ``probe`` is the path of a file that this process may create and touch."""

    def __init__(self, probe: str) -> None:
        self._probe = probe
        self._ahead = time.time() - time.monotonic()  # of the monotonic clock
        self._asked = -math.inf  # on the monotonic clock

    def monotonic(self) -> float:
        """Return seconds that never go back, for durations."""
        return time.monotonic()

    def worked(self) -> float:
        """Return the seconds of a processor that this thread has taken, for what things cost."""
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
        # The time may be anyone's since it began, and this process may have stood still. What was known stays, unless
        # that is wrong by now: so what comes later has no earlier time.
        if not now - self._asked <= self._ahead <= now - began + TICK:
            self._ahead = now - self._asked
        return now

    def arrival(self) -> float:
        """Return the file system's now, as it was asked within the last second: for what is noted and not compared."""
        if time.monotonic() >= self._asked + OFTEN:
            self.file_system()
        return self.nearly()

    def nearly(self) -> float:
        """Return the file system's now as far as it is known without asking: as it was when it was asked last."""
        return self._ahead + time.monotonic()
