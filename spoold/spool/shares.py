"""Shares: how much of the spool one owner may have, and who has how much.

Spec: spool-layout.md, "Shares". What there is is counted again and again, but only after something was added, and in a
small part of the time. What was added since is added to the last count. So a share may be exceeded by what comes
between two counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
REST = 20.0  # for how many times as long as a count took there is no other
SOONEST = 1.0  # seconds between two counts, at least
TELLING = 60.0  # seconds between two lines about one owner
MOST_TOLD = 1000  # owners of whom it is remembered that something was said


class Shares:
    """What owners have, for one actor; ``person`` says whose a uid is. Not thread-safe."""

    def __init__(self, settings: Settings, spool: Spool, person: Callable[[int], int] = lambda uid: uid) -> None:
        self._spool = spool
        self._person = person
        self._had: dict[int, Amount] = {}
        self._added: dict[int, Amount] = {}  # since the count in progress began
        self._counted: dict[int, Amount] = {}  # so far
        self._count: Iterator[Item | Pause] | None = None
        self._is_old = True
        self._rests_until = 0.0  # on the monotonic clock
        self._took = 0.0  # seconds, the count in progress
        self._told: dict[int, float] = {}  # when it was said that an owner waits
        self.follow(settings)

    def follow(self, settings: Settings) -> None:
        """Go by other settings."""
        self.most = share_of(settings)

    def look(self, patience: float) -> None:
        """Go on counting for ``patience`` seconds at most, where what was counted last is not what there is."""
        began = self._spool.clock.monotonic()
        if self._count is None:
            if not self._is_old or began < self._rests_until:
                return
            self._count = everything(self._spool.queue, self._spool.clock.file_system())
            self._is_old, self._took, self._added, self._counted = False, 0.0, {}, {}
        for found in self._count:
            if isinstance(found, Item):
                _add(self._counted, self._person(found.owner), Amount(1, found.size))
            elif self._spool.clock.monotonic() - began > patience:
                self._took += self._spool.clock.monotonic() - began
                return
        self._end_count(self._spool.clock.monotonic(), began)

    def _end_count(self, now: float, began: float) -> None:
        self._count, self._had = None, self._counted
        for owner, amount in self._added.items():
            _add(self._had, owner, amount)
        self._rests_until = now + max(SOONEST, REST * (self._took + now - began))

    def recount(self) -> None:
        """Count again: something was added that nobody tells of, or somebody waits for something to go."""
        self._is_old = True

    def add(self, owner: int, *sizes: int) -> None:
        """Count things of these ``sizes``, in bytes, that were added for ``owner``."""
        for size in sizes:
            for counts in (self._had, self._added):
                _add(counts, self._person(owner), Amount(1, room_of(size)))
        self._is_old = True

    def has_room(self, owner: int, size: int = 0) -> bool:
        """Tell whether ``owner`` may have one more, of ``size`` bytes."""
        had = self._had.get(self._person(owner), NOTHING)
        return had.entries + 1 <= self.most.entries and had.bytes + room_of(size) <= self.most.bytes

    def tell(self, owner: int, what: str) -> None:
        """Say that something of an owner's waits for room in the share, once a minute."""
        person, now = self._person(owner), self._spool.clock.monotonic()
        if now < self._told.get(person, 0.0):
            return
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told[person] = now + TELLING
        had = self._had.get(person, NOTHING)
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
        return dict(self._had)


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


def _add(counts: dict[int, Amount], owner: int, amount: Amount) -> None:
    before = counts.get(owner, NOTHING)
    counts[owner] = Amount(before.entries + amount.entries, before.bytes + amount.bytes)
