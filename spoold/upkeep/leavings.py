"""Leavings: what an executor keeps in ``tmp/`` under its name, and that goes when nobody has that name any more.

Spec: spool-layout.md, "Several hosts". Executors of a pool come and go, under names that may never be used again. One
that ends by itself takes along what it kept. What a killed one left health removes, once its presence was not renewed
for ``ABANDONED`` seconds: long after its entries went back, so that notes of what it held are of no use.

Whoever was only stopped for so long finds its presence gone and ends, as after another took its name.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import NamedTuple

from spoold.config import LeaseSettings
from spoold.host import fsops, machine
from spoold.host.clock import Clock
from spoold.model.ids import Kept

ABANDONED = 3600.0  # seconds
LOOK = 60.0  # seconds between two looks
KEPT = (Kept.USAGE, Kept.STORE, Kept.PROBE, f"{Kept.HOST}{Kept.PROBE}", Kept.HOST, Kept.LOCK)  # the lock last
OF_EXECUTORS = re.compile(rf"((?:executor|router)-.+?)(?:{'|'.join(map(re.escape, (Kept.HELD, *KEPT)))})")


def clear(root: str, process: str) -> None:
    """Remove what the executor ``process`` kept; what the host keeps us from removing stays."""
    directory = os.path.join(root, "tmp")
    notes = os.path.join(directory, process + Kept.HELD)
    with contextlib.suppress(OSError):
        for name in fsops.names(notes) if os.path.isdir(notes) else ():
            fsops.remove(os.path.join(notes, name))
        os.rmdir(notes)
    for ending in KEPT:
        with contextlib.suppress(OSError):
            fsops.remove(os.path.join(directory, process + ending))


class _Sign(NamedTuple):
    mtime: float  # the latest of what it keeps
    since: float  # for so long it is that, on the monotonic clock


class Leavings:
    """Removes what executors left that are gone from the spool ``root``."""

    def __init__(self, root: str, lease: LeaseSettings, clock: Clock) -> None:
        self._root, self._lease, self._clock = root, lease, clock
        self._signs: dict[str, _Sign] = {}
        self._rests_until = float("-inf")

    def step(self) -> list[str]:
        """Look, now and then; return the processes of which all was removed."""
        now = self._clock.monotonic()
        if now < self._rests_until:
            return []
        self._rests_until = now + LOOK
        before, self._signs = self._signs, {}
        for process, mtime in self._latest().items():
            known = before.get(process)
            self._signs[process] = known if known and known.mtime == mtime else _Sign(mtime, now)
        if not self._signs:
            return []
        oldest = self._clock.file_system() - ABANDONED
        # A host that slept finds all of them old: each gets the time to renew its presence.
        gone = [
            process
            for process, sign in self._signs.items()
            if sign.mtime < oldest and now - sign.since >= 2 * self._lease.renewal and not self._is_here(process)
        ]
        for process in gone:
            clear(self._root, process)
        return gone

    def _latest(self) -> dict[str, float]:
        latest: dict[str, float] = {}
        directory = os.path.join(self._root, "tmp")
        for name in fsops.names(directory):
            if match := OF_EXECUTORS.fullmatch(name):
                mtime = fsops.mtime(os.path.join(directory, name))
                if mtime is not None:
                    latest[match[1]] = max(mtime, latest.get(match[1], mtime))
        return latest

    def _is_here(self, process: str) -> bool:
        """Tell whether a process of this host has the lock: it was stopped, and may go on."""
        return bool(machine.lock_holders(os.path.join(self._root, "tmp", process + Kept.LOCK)))
