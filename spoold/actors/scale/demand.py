"""Demand: how many entries a pilot could work on now, by the spool alone.

Spec: spool-layout.md, "Pilots". These entries count: all in ``new/``, those in ``building/`` whose builds have ended,
and those in ``running/`` that are renewed. So entries of dead pilots start no other pilots before they were put back.
An entry is as large as its owner likes, so each is read once, and each step spends only a part of a second on reading.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import msgspec

from spoold.config import LeaseSettings, Settings
from spoold.host import attributes, fsops
from spoold.host.attributes import Identity
from spoold.model import ids
from spoold.model.errors import LeaseLostError, NewerFormatError
from spoold.model.ids import Entry
from spoold.model.plan import builds_of
from spoold.model.states import State
from spoold.spool.builds import BuildStore
from spoold.spool.lease import has_run_out
from spoold.spool.store import Spool

BUDGET = 0.2  # seconds of a step for entries that were not read yet


class _Sign(NamedTuple):
    mtime: float
    since: float  # when this mtime was first seen, on the monotonic clock
    moved: bool  # whether the mtime was another before


class Renewals:
    """Tells which of some files are renewed, by the mtime rule."""

    def __init__(self, lease: LeaseSettings) -> None:
        self._lease = lease
        self._seen: dict[str, _Sign] = {}

    def among(self, mtimes: dict[str, float], file_system: float, now: float) -> set[str]:
        """Return the names whose mtimes are renewed.

        ``file_system`` and ``now`` are the times of the file system's clock and of the monotonic one. A name that was
        never seen before counts as renewed unless its mtime is older than a lease.
        """
        before, self._seen = self._seen, {}
        for name, mtime in mtimes.items():
            known = before.get(name)
            self._seen[name] = known if known and known.mtime == mtime else _Sign(mtime, now, moved=known is not None)
        return {name for name, sign in self._seen.items() if self._lives(sign, file_system, now)}

    def _lives(self, sign: _Sign, file_system: float, now: float) -> bool:
        age = file_system - sign.mtime
        return (sign.moved or age <= self._lease.limit) and not has_run_out(age, now - sign.since, self._lease)


class Demand:
    """Counts entries of a spool. Reads ``Spool`` and ``BuildStore``, and writes nothing."""

    def __init__(self, settings: Settings, spool: Spool, builds: BuildStore) -> None:
        self._spool, self._builds = spool, builds
        self._renewals = Renewals(settings.lease)
        self._runtime: Identity | None = None
        self._needs: dict[Entry, tuple[str, ...]] = {}  # the builds that each entry waits for

    def count(self, most: float) -> int:
        """Return how many entries there are to work on. Beyond ``most`` the number may be too low."""
        count = sum(ids.parse_entry(name) is not None for name in fsops.names(self._spool.queue.path(State.NEW)))
        count += self._running()
        return count if count >= most else count + self._built(most - count)

    def _running(self) -> int:
        directory = self._spool.queue.path(State.RUNNING)
        found = {name: fsops.mtime(os.path.join(directory, name)) for name in fsops.names(directory)}
        mtimes = {name: mtime for name, mtime in found.items() if mtime is not None}
        clock = self._spool.clock
        return len(self._renewals.among(mtimes, clock.file_system() if mtimes else 0.0, clock.monotonic()))

    def _built(self, most: float) -> int:
        """Return how many entries in ``building/`` have all their builds."""
        runtime = attributes.identity(self._builds.runtime.path)
        known, self._needs = self._needs if runtime == self._runtime else {}, {}
        self._runtime = runtime
        done: dict[str, bool] = {}
        count, until = 0, self._spool.clock.monotonic() + BUDGET
        for name in fsops.names(self._spool.queue.path(State.BUILDING)):
            entry = ids.parse_entry(name)
            if entry is None:
                continue
            if entry not in known and (count >= most or self._spool.clock.monotonic() >= until):
                continue
            needed = known[entry] if entry in known else self._needed(entry)
            if needed is None:
                continue
            self._needs[entry] = needed
            for build_id in needed:
                if build_id not in done:
                    done[build_id] = fsops.exists(self._builds.result_path(build_id))
            count += all(done[build_id] for build_id in needed)
        return count

    def _needed(self, entry: Entry) -> tuple[str, ...] | None:
        """Return the builds that an entry waits for. Return none where it needs none and an executor has to say why."""
        try:
            runtime = self._builds.runtime.read()
            request = self._spool.read(State.BUILDING, entry).Request
        except (LeaseLostError, NewerFormatError):
            return None
        except msgspec.DecodeError:
            return ()
        return None if runtime is None else tuple(builds_of(request, runtime)) if request else ()
