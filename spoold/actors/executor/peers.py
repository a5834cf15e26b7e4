"""Peers: the order in which the executors of a spool look at an entry, so that not all of them read every entry.

Spec: spool-layout.md, "Several hosts". Any executor may take any entry: the rename decides. A hash of the entry's id
gives the order in which executors look at it, each a moment after the one before. An executor knows the others by their
presence (``upkeep/presence``). Two executors may differ over who is there. Then both look at the same entry, or each
leaves it to the other for a moment. Neither does harm. Not thread-safe.
"""

from __future__ import annotations

import os
import zlib

from spoold.config import LeaseSettings
from spoold.host import fsops
from spoold.host.clock import Clock
from spoold.model.ids import Kept
from spoold.spool.lease import has_run_out

LOOK = 2.0  # seconds between two looks at who is there
PREFIX = "executor-"


class Peers:
    """The executors that note their presence in ``directory``.

    This one's ``process`` counts as present, also where its note is not there. Executors do not leave entries to a
    router. A router comes after all of them.
    """

    def __init__(self, directory: str, process: str, lease: LeaseSettings, clock: Clock) -> None:
        self._directory = directory
        self._own = f"{process}{Kept.HOST}"
        self._routes = not process.startswith(PREFIX)
        self._lease = lease
        self._clock = clock
        self._looked = float("-inf")  # on the monotonic clock
        self._renewed: dict[str, tuple[float, float]] = {}  # name: mtime, since when (monotonic clock)
        self.count, self._number = 1, 0

    def look(self) -> bool:
        """Look who is there, every ``LOOK`` seconds at most. Return whether this executor's part has changed."""
        now = self._clock.monotonic()
        if now < self._looked + LOOK:
            return False
        self._looked = now
        names = sorted({self._own, *self._alive(now)})
        before = self.count, self._number
        self.count, self._number = len(names), names.index(self._own)
        return before != (self.count, self._number)

    def _alive(self, now: float) -> list[str]:
        """Return the presence files of executors whose lease has not run out."""
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
        """Return how many other executors look at an entry with this id before this one does."""
        if self._routes:
            return self.count - 1
        return (zlib.crc32(id_.encode()) - self._number) % self.count if self.count > 1 else 0
