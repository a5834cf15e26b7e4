"""Shares: how much of the spool one owner may have, and how much each owner has.

Spec: spool-layout.md, "Shares". Health counts what there is (see ``counting``). An actor that gives something to owners
reads that count, and adds what it gave them since. So owners can exceed a share by what other actors give them between
two counts.
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
PART = 0.25  # of the file system: one owner's share by default
INODES = 4  # inodes of an entry: itself, its answer, a side file, a note of its id
BLOCK = 4096  # bytes that a small file takes of a disk
LOOK = 0.2  # seconds between two looks for a newer count
MARGIN = 2.0  # seconds by which clocks may differ: things added so shortly before a count are counted twice
TELLING = 60.0  # seconds between two log lines about one owner
MOST_ADDED = 100_000  # things that are remembered one by one. Between two counts there are fewer, if health runs
MOST_TOLD = 1000  # owners for whom the time of the last log line is remembered


class Holding(msgspec.Struct, frozen=True, array_like=True):
    """What one owner has: entries, their bytes on the disk, and how many of these bytes are no longer on their way."""

    entries: float = 0
    bytes: float = 0
    kept: float = 0

    def plus(self, size: int, *, kept: bool) -> Holding:
        """Return this holding with one more entry, which takes ``size`` bytes of the disk."""
        return Holding(self.entries + 1, self.bytes + size, self.kept + (size if kept else 0))


class Count(Stored, frozen=True, kw_only=True):
    """The holdings of owners, by uid. The count began at ``began``, in seconds on the file system's clock."""

    began: float
    owners: dict[int, Holding]


class Added(NamedTuple):
    """Something that this process added since the last count. ``time`` is about the file system's time."""

    time: float
    owner: int
    size: int
    kept: bool


class Shares:
    """The holdings of owners, as one actor knows them. ``person`` returns the person behind a uid. Thread-safe."""

    def __init__(self, settings: Settings, spool: Spool, person: Callable[[int], int] = lambda uid: uid) -> None:
        self._spool = spool
        self._person = person
        self._path = spool.queue.path("tmp", COUNT)
        self._lock = threading.RLock()
        self._seen: attributes.Identity | None = None  # identity of the last count
        self._looked = -LOOK  # on the monotonic clock
        self._had: dict[int, Holding] = {}
        self._added: deque[Added] = deque(maxlen=MOST_ADDED)
        self._told: dict[int, float] = {}  # when an owner may be logged again
        self.apply_settings(settings)

    def apply_settings(self, settings: Settings) -> None:
        """Use other settings."""
        self._settings = settings
        self.most = share_of(settings)

    def look(self) -> None:
        """Read a newer count, where there is one."""
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
            log.debug("health's count of what each owner has in the spool cannot be read", error=error)
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
            return  # nobody counts, so this would only grow
        now = self._spool.clock.nearly()
        with self._lock:
            for size in sizes:
                self._added.append(Added(now, self._person(owner), room_of(size), kept))
                self._plus(self._added[-1])

    def has_room(self, owner: int, size: int = 0) -> bool:
        """Tell whether ``owner`` has room for one more entry of ``size`` bytes."""
        had = self._of(owner)
        return had.entries + 1 <= self.most.entries and had.bytes + room_of(size) <= self.most.bytes

    def may_begin(self, owner: int) -> bool:
        """Tell whether an entry of this owner may be worked on, since what is kept leaves room for an answer.

        Entries on their way do not count here. Otherwise entries that wait could keep themselves waiting for ever.
        """
        return self._of(owner).kept <= self.most.bytes

    def _of(self, owner: int) -> Holding:
        with self._lock:
            return self._had.get(self._person(owner), Holding())

    def tell(self, owner: int, what: str) -> None:
        """Log that something of this owner waits for room in the share, once a minute."""
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
    """Return how much one owner may have. There is no bound where the file system does not tell its size."""
    share, part = settings.share, part_of(settings)
    return Amount(part.entries if share.entries < 0 else share.entries, part.bytes if share.bytes < 0 else share.bytes)


def part_of(settings: Settings) -> Amount:
    """Return the part of the file system that one owner may have if the settings say nothing else."""
    bytes_ = inodes = math.inf
    with contextlib.suppress(OSError):
        bytes_, inodes = machine.capacity(settings.spool.path)
    return Amount(inodes * PART / INODES, bytes_ * PART)


def room_of(size: int) -> int:
    """Return the bytes of the disk that an entry of ``size`` bytes takes, with the smallest answer."""
    return (size // BLOCK + 2) * BLOCK
