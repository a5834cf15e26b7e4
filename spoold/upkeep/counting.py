"""Counting: how much each owner has in the spool, for all actors that give owners more.

Spec: spool-layout.md, "Shares". One process counts, by a walk through the whole spool, and leaves the result where the
other actors read it (see ``shares``). It counts only where something changed, and only in a small part of the time.
While nobody comes near the end of a share, it takes a very small part of the time.

What fails: after an error of the host the last count holds, and counting is tried again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from spoold.config import Settings
from spoold.host import fsops, machine
from spoold.host.log import Log
from spoold.host.seldom import Seldom
from spoold.model import formats
from spoold.model.ids import Private
from spoold.model.states import Role, State
from spoold.spool.store import Spool
from spoold.upkeep.holdings import Item, Pause, everything
from spoold.upkeep.shares import COUNT, Count, Holding, share_of

log = Log(Role.HEALTH)
NEAR = 0.5  # of a share: if an owner has this much, counts come more often
REST, SOONEST = 20.0, 1.0  # no count for REST times as long as the last took, nor for SOONEST seconds
LONG_REST, LATER = 200.0, 60.0  # the same while no owner has this much
TICK = 0.02  # seconds within which a directory may change again and keep the same mtime
FAST = 0.125  # of a share: if the disk lost this much since the last count, an owner may be near
PLACES = (*State, "quarantine", "progress", "builds/used")


class Counter:
    """The counts of one spool. ``person`` returns the person behind a uid."""

    def __init__(self, settings: Settings, spool: Spool, person: Callable[[int], int] = lambda uid: uid) -> None:
        self._spool = spool
        self._person = person
        self._seldom = Seldom(log, spool.clock)
        self._owners: dict[int, Holding] = {}  # as far as the present count has come
        self._count: Iterator[Item | Pause] | None = None
        self._began = 0.0  # on the file system's clock
        self._changed: list[float | None] | None = None  # when the directories had changed, as the last count began
        self._free = 0  # free bytes of the disk, at that time
        self._near = True
        self._ended = -math.inf  # the end of the last count, on the monotonic clock
        self._took = 0.0  # seconds that the last count took, or the present one so far
        self.apply_settings(settings)

    def apply_settings(self, settings: Settings) -> None:
        """Use other settings."""
        self._most = share_of(settings)
        self._near = True

    def step(self, patience: float) -> None:
        """Go on counting for ``patience`` seconds at most, where something changed since the last count."""
        began = self._spool.clock.monotonic()
        try:
            if self._count is None and not self._begin(began):
                return
            is_whole = self._go_on(began + patience)
        except OSError as error:
            log.error("what each owner has in the spool could not be counted; trying again", error=error)
            self._count, self._changed = None, None
        else:
            if is_whole:
                self._end()
        self._ended = self._spool.clock.monotonic()
        self._took += self._ended - began

    def _begin(self, now: float) -> bool:
        """Begin a count, where one is due. Return whether it began."""
        changed = [fsops.mtime(self._spool.queue.path(place)) for place in PLACES]
        free = machine.room(self._spool.root).bytes
        near = self._near or self._free - free > FAST * self._most.bytes
        rest = max(SOONEST, REST * self._took) if near else max(LATER, LONG_REST * self._took)
        if changed == self._changed or now < self._ended + rest:
            return False
        self._changed, self._free, self._took, self._owners = changed, free, 0.0, {}
        self._began = self._spool.clock.file_system()
        if max((mtime for mtime in changed if mtime is not None), default=0.0) > self._began - TICK:
            self._changed = None  # what comes just now may show in no time of a directory
        self._count = everything(self._spool, self._seldom)
        return True

    def _go_on(self, until: float) -> bool:
        """Go on with the count until ``until``, on the monotonic clock. Return whether it is whole."""
        for found in self._count or ():
            if isinstance(found, Item):
                person = self._person(found.owner)
                self._owners[person] = self._owners.get(person, Holding()).plus(found.size, kept=bool(found.file))
            elif self._spool.clock.monotonic() > until:
                return False
        return True

    def _end(self) -> None:
        """Leave the count where other actors read it."""
        self._count = None
        most = self._most
        self._near = any(
            had.bytes > NEAR * most.bytes or had.entries > NEAR * most.entries for had in self._owners.values()
        )
        private = self._spool.queue.private(Private.NOTE, COUNT)
        data = formats.encode(Count(began=self._began, owners=self._owners))
        fsops.write_private(private, data, sync=False)
        fsops.replace(private, self._spool.queue.path("tmp", COUNT))
