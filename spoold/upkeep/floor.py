"""The floor: how much of the spool's disk must be free for work to be taken.

Spec: spool-layout.md, "Overload". Intake stops first, so that accepted submissions have room for their results. Nobody
has to step in. The file system is asked again and again, and waiting work is taken once there is room.
"""

from __future__ import annotations

import threading
import time

from spoold.config import Settings
from spoold.host import machine
from spoold.host.log import Log
from spoold.host.metrics import SHORT_OF_DISK
from spoold.host.notify import notify

log = Log("spool")
MOST = 0.1  # of the file system, where that is less than the minima
LOOK = 0.5  # seconds for which an answer of the file system holds


class Floor:
    """One role's floor: ``share`` (1 or less) of the minima in the settings. Thread-safe.

    Logs once when it is reached, and once when it no longer is.
    """

    def __init__(self, settings: Settings, share: float, waits: str) -> None:
        self._share = share
        self._waits = waits
        self.apply_settings(settings)
        self._short = ""
        self._looked = 0.0
        self._lock = threading.Lock()

    def apply_settings(self, settings: Settings) -> None:
        """Use other settings."""
        self._path = settings.spool.path
        self._bytes = settings.spool.min_free * self._share
        self._inodes = settings.spool.min_free_inodes * self._share
        self._most = MOST * self._share

    def reached(self) -> bool:
        """Tell whether so little is free that no more work may be taken."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked >= LOOK:
                self._looked = now
                self._say(self._look())
            return bool(self._short)

    def _look(self) -> str:
        try:
            return machine.shortage(self._path, self._bytes, self._inodes, self._most)
        except OSError as error:  # a disk or a file server in trouble: nothing is begun on it
            return f"free space at {self._path} cannot be told: {error}"

    def _say(self, short: str) -> None:
        before, self._short = self._short, short
        SHORT_OF_DISK.set(bool(short))
        if short and not before:
            log.error("too little is free on the disk; work waits until there is more", found=short, so=self._waits)
            notify(f"STATUS={self._waits}: {short}")
        elif before and not short:
            log.info("enough is free again on the disk; work goes on")
            notify("STATUS=")
