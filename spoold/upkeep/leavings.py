"""Leavings: the files that an executor keeps in ``tmp/`` under its name. They go when nobody has that name any more.

Spec: spool-layout.md, "Several hosts". Executors of a pool come and go, under names that may never be used again. An
executor that ends by itself removes what it kept. Health removes the files of an executor that was killed, once its
presence was not renewed for ``ABANDONED`` seconds. By then its entries went back long ago, so its notes of what it held
are of no use.

An executor that was only stopped for that long finds its presence gone and ends, as if another had taken its name.
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
    """Remove the files that the executor ``process`` kept. Files that the host keeps us from removing stay."""
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
    mtime: float  # the latest of its files
    since: float  # since when it is the latest, on the monotonic clock


class Leavings:
    """Removes from the spool ``root`` the files of executors that are gone."""

    def __init__(self, root: str, lease: LeaseSettings, clock: Clock) -> None:
        self._root, self._lease, self._clock = root, lease, clock
        self._signs: dict[str, _Sign] = {}
        self._rests_until = float("-inf")

    def step(self) -> list[str]:
        """Look, every ``LOOK`` seconds at most. Return the processes whose files were removed."""
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
        # After a host slept, all of them look old. So each gets time to renew its presence.
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
        """Tell whether a process of this host has the lock. It was stopped, and may go on."""
        return bool(machine.lock_holders(os.path.join(self._root, "tmp", process + Kept.LOCK)))
