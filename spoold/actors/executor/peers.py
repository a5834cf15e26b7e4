"""Peers: which of the executors of a spool an entry is left to at first, so that not all of them look at each.

Spec: spool-layout.md, "Several hosts". Any executor may take any entry: the rename decides. But a hash of an entry's id
says in which order they look at it, each a moment after the one before. The others are known by their presence
(``upkeep/presence``). Two that differ over who there is look at the same entry, or leave it to each other for a moment:
neither is wrong. Not thread-safe.
"""

from __future__ import annotations

import os
import zlib

from spoold.config import LeaseSettings
from spoold.host import fsops
from spoold.host.clock import Clock
from spoold.model.ids import Kept
from spoold.spool.lease import has_run_out

LOOK = 2.0  # seconds between two looks who there is
PREFIX = "executor-"


class Peers:
    """The executors that note their presence in ``directory``; this one's ``process`` is one of them, there or not.

    A router is none of those that others leave entries to, and comes after all of them.
    """

    def __init__(self, directory: str, process: str, lease: LeaseSettings, clock: Clock) -> None:
        self._directory = directory
        self._own = f"{process}{Kept.HOST}"
        self._routes = not process.startswith(PREFIX)
        self._lease = lease
        self._clock = clock
        self._looked = float("-inf")  # on the monotonic clock
        self._renewed: dict[str, tuple[float, float]] = {}  # mtimes, and since when they are so on the monotonic clock
        self.count, self._number = 1, 0

    def look(self) -> bool:
        """Look who there is, now and then; tell whether another part is this executor's."""
        now = self._clock.monotonic()
        if now < self._looked + LOOK:
            return False
        self._looked = now
        names = sorted({self._own, *self._alive(now)})
        before = self.count, self._number
        self.count, self._number = len(names), names.index(self._own)
        return before != (self.count, self._number)

    def _alive(self, now: float) -> list[str]:
        """Return the files of those whose lease has not run out."""
        found = [each for each in fsops.names(self._directory) if each.startswith(PREFIX) and each.endswith(Kept.HOST)]
        renewed: dict[str, tuple[float, float]] = {}
        for name in found:
            mtime, before = fsops.mtime(os.path.join(self._directory, name)), self._renewed.get(name)
            if mtime is not None:
                renewed[name] = before if before and before[0] == mtime else (mtime, now)
        self._renewed = renewed
        here = self._clock.file_system() if len(renewed) > 1 else 0.0
        return [
            name for name, (mtime, since) in renewed.items() if not has_run_out(here - mtime, now - since, self._lease)
        ]

    def rank(self, id_: str) -> int:
        """Return how many other executors look at an entry with that id before this one does."""
        if self._routes:
            return self.count - 1
        return (zlib.crc32(id_.encode()) - self._number) % self.count if self.count > 1 else 0
