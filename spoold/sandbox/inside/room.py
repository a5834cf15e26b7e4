"""Which of a job's file systems in memory had no room: for another byte, or another file.

The kernel tells a program that asks, and nobody else. So it is looked at, whenever memory is. What was removed again
between two looks is not seen, nor is a request for more than there ever is.
"""

from __future__ import annotations

import os

from .messages import Full

PLACES = ("/job", "/tmp", "/dev/shm")


class Room:
    """The room of a phase, from now on.

    ``full`` is where there was none, in the order in which that was met, ``entries`` the most files and directories.
    """

    def __init__(self) -> None:
        self.entries = 0
        self.full: list[Full] = []
        self._met: set[tuple[str, bytes]] = set()

    def look(self) -> None:
        """Look at all of them."""
        entries = 0
        for place in PLACES:
            seen = os.statvfs(place)
            entries += seen.f_files - seen.f_ffree
            if not seen.f_bfree:
                self._meet(place, b"bytes", seen.f_blocks * seen.f_frsize)
            if not seen.f_ffree:
                self._meet(place, b"files", seen.f_files)
        self.entries = max(self.entries, entries)

    def _meet(self, place: str, what: bytes, most: int) -> None:
        if most and (place, what) not in self._met:  # 0 is of an engine whose file systems have no bound
            self._met.add((place, what))
            self.full.append(Full(place=place.encode(), what=what, most=most))
