"""Shares: how much of the spool one owner may have, and who has how much.

Spec: spool-layout.md, "Shares". Health counts what there is (see ``counting``). Whoever gives something to owners reads
that, and adds what it gave them since. So a share may be exceeded by what others give between two counts.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from spoold.config import Settings
from spoold.host import attributes, fsops, machine
from spoold.host.log import Log
from spoold.model import formats
from spoold.model.errors import NewerFormatError
from spoold.model.formats import Stored
from spoold.model.ids import Kept
from spoold.model.retention import Amount
from spoold.spool.store import Spool

log = Log("spool")
COUNT = f"health{Kept.COUNT}"  # the file in tmp/
PART = 0.25  # of the file system: the default of one owner's share
INODES = 4  # that an entry takes: itself, its answer, a side file, a note of its id
BLOCK = 4096  # bytes: what a small file takes of a disk
LOOK = 0.2  # seconds between two looks for a newer count
MARGIN = 2.0  # seconds by which clocks may differ: for so long before a count what was added counts twice
TELLING = 60.0  # seconds between two lines about one owner
MOST_ADDED = 100_000  # things that are remembered by themselves; there are fewer between two counts, if health runs
MOST_TOLD = 1000  # owners of whom it is remembered that something was said


class Holding(msgspec.Struct, frozen=True, array_like=True):
    """What one owner has: entries, the bytes that these take of the disk, and of these what is no longer on its way."""

    entries: float = 0
    bytes: float = 0
    kept: float = 0

    def plus(self, size: int, *, kept: bool) -> Holding:
        """Return it with one more, which takes ``size`` bytes of the disk."""
        return Holding(self.entries + 1, self.bytes + size, self.kept + (size if kept else 0))


class Count(Stored, frozen=True, kw_only=True):
    """What owners have, by uid, as counted from ``began`` on: seconds on the file system's clock."""

    began: float
    owners: dict[int, Holding]


class Added(NamedTuple):
    """Something that this process added since the last count; the time is the file system's, or near it."""

    time: float
    owner: int
    size: int
    kept: bool


class Shares:
    """What owners have, for one actor; ``person`` says whose a uid is. Thread-safe."""

    def __init__(self, settings: Settings, spool: Spool, person: Callable[[int], int] = lambda uid: uid) -> None:
        self._spool = spool
        self._person = person
        self._path = spool.queue.path("tmp", COUNT)
        self._lock = threading.RLock()
        self._seen: attributes.Identity | None = None  # of the last count
        self._looked = -LOOK  # on the monotonic clock
        self._had: dict[int, Holding] = {}
        self._added: deque[Added] = deque(maxlen=MOST_ADDED)
        self._told: dict[int, float] = {}  # when it was said that an owner waits
        self.apply_settings(settings)

    def apply_settings(self, settings: Settings) -> None:
        """Go by other settings."""
        self._settings = settings
        self.most = share_of(settings)

    def look(self) -> None:
        """Take notice of a newer count, where there is one."""
        now = self._spool.clock.monotonic()
        if now < self._looked + LOOK:
            return
        self._looked = now
        seen = attributes.identity(self._path)
        if seen is not None and seen != self._seen and (count := self._read()):
            self._seen = seen
            self._begin_from(count)
            self.most = share_of(self._settings)  # a file system can grow

    def _read(self) -> Count | None:
        try:
            data = fsops.read(self._path)
            return None if data is None else formats.decode(data, Count, self._path)
        except (msgspec.DecodeError, NewerFormatError, OSError) as error:
            log.debug("the count of what owners have cannot be read", error=error)
            return None

    def _begin_from(self, count: Count) -> None:
        with self._lock:
            while self._added and self._added[0].time < count.began - MARGIN:
                self._added.popleft()
            self._had = dict(count.owners)
            for added in self._added:
                self._plus(added)

    def _plus(self, added: Added) -> None:
        self._had[added.owner] = self._had.get(added.owner, Holding()).plus(added.size, kept=added.kept)

    def add(self, owner: int, *sizes: int, kept: bool = True) -> None:
        """Count things of these ``sizes``, in bytes, that were added for ``owner``."""
        if self._seen is None:
            return  # nobody counts: then it would only grow
        now = self._spool.clock.nearly()
        with self._lock:
            for size in sizes:
                self._added.append(Added(now, self._person(owner), room_of(size), kept))
                self._plus(self._added[-1])

    def has_room(self, owner: int, size: int = 0) -> bool:
        """Tell whether ``owner`` may have one more, of ``size`` bytes."""
        had = self._of(owner)
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
        had = self._of(owner)
        log.warning(
            "an owner has used up a share of the spool (see [share] in the settings)",
            so=what,
            uid=person,
            entries=int(had.entries),
            most_entries=int(self.most.entries),
            bytes=int(had.bytes),
            most_bytes=int(self.most.bytes),
        )


def share_of(settings: Settings) -> Amount:
    """Return what one owner may have at the most; without a bound where the file system does not tell its size."""
    share, part = settings.share, part_of(settings)
    return Amount(part.entries if share.entries < 0 else share.entries, part.bytes if share.bytes < 0 else share.bytes)


def part_of(settings: Settings) -> Amount:
    """Return the part of the file system that is one owner's where the settings do not say otherwise."""
    bytes_ = inodes = math.inf
    with contextlib.suppress(OSError):
        bytes_, inodes = machine.capacity(settings.spool.path)
    return Amount(inodes * PART / INODES, bytes_ * PART)


def room_of(size: int) -> int:
    """Return the bytes of the disk that an entry of ``size`` bytes takes, with the least that an answer does."""
    return (size // BLOCK + 2) * BLOCK
