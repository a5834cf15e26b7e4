"""Shares: how much of the spool one owner may have, and who has how much.

Spec: spool-layout.md, "Shares". What there is is counted by a walk through it, and what was added since is added to the
last count. A count is made only after something was added, in a small part of the time, and in a very small one while
nobody comes near the end of a share. So a share may be exceeded by what comes between two counts.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from spoold.config import Settings
from spoold.host import machine
from spoold.host.log import Log
from spoold.model.retention import NOTHING, Amount
from spoold.spool.holdings import Item, Pause, everything
from spoold.spool.store import Spool

log = Log("spool")
PART = 0.25  # of the file system: the default of one owner's share
INODES = 4  # that an entry takes: itself, its answer, a side file, a note of its id
BLOCK = 4096  # bytes: what a small file takes of a disk
NEAR = 0.5  # of a share: whoever has so much is counted more often
REST, SOONEST = 20.0, 1.0  # for how many times as long as a count took there is no other; seconds, at least
LONG_REST, LATER = 200.0, 60.0  # the same while nobody is near
TELLING = 60.0  # seconds between two lines about one owner
MOST_TOLD = 1000  # owners of whom it is remembered that something was said


class Holding(NamedTuple):
    """What one owner has: all of it, and of its bytes those of what is no longer on its way."""

    all: Amount = NOTHING
    kept: float = 0

    def plus(self, size: int, *, kept: bool) -> Holding:
        """Return it with one more, which takes ``size`` bytes of the disk."""
        return Holding(Amount(self.all.entries + 1, self.all.bytes + size), self.kept + (size if kept else 0))


class Shares:
    """What owners have, for one actor; ``person`` says whose a uid is. Thread-safe."""

    def __init__(self, settings: Settings, spool: Spool, person: Callable[[int], int] = lambda uid: uid) -> None:
        self._spool = spool
        self._person = person
        self._lock = threading.RLock()
        self._had: dict[int, Holding] = {}
        self._counted: dict[int, Holding] = {}  # so far, by the count in progress, with what is added meanwhile
        self._count: Iterator[Item | Pause] | None = None
        self._is_old, self._is_near = True, True
        self._ended = -math.inf  # on the monotonic clock, the last count
        self._took = 0.0  # seconds, the last count, or the one in progress so far
        self._told: dict[int, float] = {}  # when it was said that an owner waits
        self.follow(settings)

    def follow(self, settings: Settings) -> None:
        """Go by other settings."""
        self.most = share_of(settings)

    def look(self, patience: float) -> None:
        """Go on counting for ``patience`` seconds at most, where what was counted last is not what there is."""
        began = self._spool.clock.monotonic()
        with self._lock:
            if self._count is None:
                if not self._is_due(began):
                    return
                self._count = everything(self._spool.queue, self._spool.clock.file_system())
                self._is_old, self._is_near, self._took, self._counted = False, False, 0.0, {}
            for found in self._count:
                if isinstance(found, Item):
                    self._plus(self._counted, found.owner, found.size, kept=bool(found.file))
                elif self._spool.clock.monotonic() - began > patience:
                    self._took += self._spool.clock.monotonic() - began
                    return
            self._count, self._had = None, self._counted
            self._ended = self._spool.clock.monotonic()
            self._took += self._ended - began

    def _is_due(self, now: float) -> bool:
        rest = max(SOONEST, REST * self._took) if self._is_near else max(LATER, LONG_REST * self._took)
        return self._is_old and now >= self._ended + rest

    def _plus(self, counts: dict[int, Holding], owner: int, size: int, *, kept: bool) -> Holding:
        person = self._person(owner)
        counts[person] = counts.get(person, Holding()).plus(size, kept=kept)
        return counts[person]

    def recount(self) -> None:
        """Count again, soon: somebody waits for something to go."""
        self._is_old = self._is_near = True

    def add(self, owner: int, *sizes: int, kept: bool = True) -> None:
        """Count things of these ``sizes``, in bytes, that were added for ``owner``."""
        with self._lock:
            for size in sizes:
                had = self._plus(self._had, owner, room_of(size), kept=kept)
                if self._count is not None:
                    self._plus(self._counted, owner, room_of(size), kept=kept)
                self._is_near |= any(has > NEAR * may for has, may in zip(had.all, self.most, strict=True))
            self._is_old = True

    def has_room(self, owner: int, size: int = 0) -> bool:
        """Tell whether ``owner`` may have one more, of ``size`` bytes."""
        had = self._of(owner).all
        return had.entries + 1 <= self.most.entries and had.bytes + room_of(size) <= self.most.bytes

    def may_begin(self, owner: int) -> bool:
        """Tell whether one of the owner's entries may be worked on: what is kept leaves room for an answer.

        What is on its way does not count here, or what waits could keep itself waiting for ever.
        """
        return self._of(owner).kept <= self.most.bytes

    def _of(self, owner: int) -> Holding:
        with self._lock:
            return self._had.get(self._person(owner), Holding())

    def tell(self, owner: int, what: str) -> None:
        """Say that something of an owner's waits for room in the share, once a minute."""
        person, now = self._person(owner), self._spool.clock.monotonic()
        if now < self._told.get(person, 0.0):
            return
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told[person] = now + TELLING
        had = self._of(owner).all
        log.warning(
            "an owner has used up a share of the spool (see [share] in the settings)",
            so=what,
            uid=person,
            entries=int(had.entries),
            most_entries=int(self.most.entries),
            bytes=int(had.bytes),
            most_bytes=int(self.most.bytes),
        )

    def had(self) -> dict[int, Amount]:
        """Return what owners have, by uid."""
        return {owner: holding.all for owner, holding in self._had.items()}


def share_of(settings: Settings) -> Amount:
    """Return what one owner may have at the most; without a bound where the file system does not tell its size."""
    bytes_, inodes = machine.capacity(settings.spool.path)
    share = settings.share
    return Amount(
        inodes * PART / INODES if share.entries < 0 else share.entries,
        bytes_ * PART if share.bytes < 0 else share.bytes,
    )


def room_of(size: int) -> int:
    """Return the bytes of the disk that an entry of ``size`` bytes takes, with the least that an answer does."""
    return (size // BLOCK + 2) * BLOCK
