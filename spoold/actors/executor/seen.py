"""The entries that an executor knows of and has to look at, now or later.

Spec: spool-layout.md, "Overload" and "Attempts". An entry is *seen* once an event told its name or a scan found it. It
may *rest*, because its attempt is not due yet. It may be *left*, because a newer version wrote it. An entry is as large
as its owner likes, so looks take different times. The next look is for the owner whose entries took the least time so
far. An owner is a person, with all uids that are theirs.

Nothing here survives the process: all of it is found again in the spool. Not thread-safe. Times are the monotonic
clock's.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from spoold.actors.executor.ready import WAITING, Place
from spoold.model.ids import Entry
from spoold.model.levels import TimedTurns
from spoold.model.states import State

TOLD, FOUND = -1, -2  # stand for the unknown owner of an entry that an event told or a scan found
PATIENCE = 3.0  # seconds for which others' entries wait longer while something of the same owner is in line here
AGAIN = 0.25  # seconds between two looks whether that is so
MOST = 20_000  # entries of one owner that events may add. A scan finds further ones when these are gone


class Seen(NamedTuple):
    """An entry to look at. ``rested`` is true if it was looked at before and was not due yet."""

    place: Place
    rested: bool = False


class AllSeen:
    """All entries that one executor has to look at, now or later.

    ``person`` returns the person behind a uid. ``is_in_line`` tells whether something of a person is in line here.
    """

    def __init__(
        self,
        person: Callable[[int], int] = lambda uid: uid,
        is_in_line: Callable[[int], bool] = lambda _: False,
    ) -> None:
        self._person = person
        self._is_in_line = is_in_line
        self._names: dict[State, set[str]] = {state: set() for state in WAITING}
        self._left: dict[State, set[str]] = {state: set() for state in WAITING}  # names that a newer version wrote
        self._turns: TimedTurns[Seen] = TimedTurns()
        self._resting: list[tuple[float, Place]] = []
        self._left_to_others: list[tuple[float, Place, float]] = []  # until when, and until when at the latest
        self._counts: dict[int, int] = {}  # how many of each person's are in ``_left_to_others``

    def __bool__(self) -> bool:
        """Tell whether there is something to look at now."""
        return bool(self._turns)

    def names(self, state: State) -> AbstractSet[str]:
        """Return the names of the entries from ``state`` that are here."""
        return self._names[state]

    def see(self, place: Place, unnamed: int) -> bool:
        """Let an entry be looked at in its owner's turn, unless it is here already. Return False where too many are.

        ``unnamed`` stands for the owner where the entry's name does not tell it.
        """
        person = self.person_of(place.entry, unnamed)
        names = self._names[place.state]
        if place.name in names:
            return True
        if self._turns.count(person) >= MOST:
            return False
        self._turns.add(person, Seen(place))
        names.add(place.name)
        return True

    def see_later(self, place: Place, until: float, most: int) -> bool:
        """Let an entry that others look at first be looked at, if it is still there at ``until``.

        It is left to them for ``PATIENCE`` longer while its owner has something in line here. Otherwise executors that
        all have work would read each other's entries in vain. Return False where ``most`` entries of its owner already
        wait like that.
        """
        person = self.person_of(place.entry, FOUND)
        count = self._counts.get(person, 0)
        if place.name in self._names[place.state]:
            return True
        if count >= most:
            return False
        self._counts[person] = count + 1
        self._names[place.state].add(place.name)
        heapq.heappush(self._left_to_others, (until, place, until + PATIENCE))
        return True

    def has_room_later(self, person: int, most: int) -> bool:
        """Tell whether ``see_later`` has room for one more entry of a person. Any thread may call this."""
        return self._counts.get(person, 0) < most

    def count(self, person: int) -> int:
        """Return how many entries of a person are to be looked at now."""
        return self._turns.count(person)

    def person_of(self, entry: Entry, unnamed: int) -> int:
        """Return the person who owns an entry."""
        return self._person(unnamed if entry.owner is None else entry.owner)

    def take(self, now: float) -> Seen | None:
        """Take the next entry to look at, or None. It is no longer here then, unless it is put here again.

        Entries of one owner that have rested go first. The caller then tells ``looked`` how long the look took.
        """
        while self._resting and self._resting[0][0] <= now:
            rested = heapq.heappop(self._resting)[1]
            self._turns.add(self.person_of(rested.entry, FOUND), Seen(rested, rested=True), priority=1)
        while self._left_to_others and self._left_to_others[0][0] <= now:
            _, left, latest = heapq.heappop(self._left_to_others)
            person = self.person_of(left.entry, FOUND)
            if now < latest and self._is_in_line(person):
                heapq.heappush(self._left_to_others, (min(latest, now + AGAIN), left, latest))
                continue
            self._counts[person] -= 1
            if not self._counts[person]:
                del self._counts[person]
            self._turns.add(person, Seen(left))
        seen = self._turns.take()
        if seen:
            self._names[seen.place.state].discard(seen.place.name)
        return seen

    def looked(self, seconds: float) -> None:
        """Charge the owner of the entry that was taken last with the time that the look took."""
        self._turns.charge(seconds)

    def rest(self, place: Place, until: float) -> None:
        """Let an entry be looked at again at ``until``."""
        self._names[place.state].add(place.name)
        heapq.heappush(self._resting, (until, place))

    @property
    def rests_until(self) -> float | None:
        """Return when the next entry that rests, or that is left to others first, is due."""
        firsts = (waiting[0][0] for waiting in (self._resting, self._left_to_others) if waiting)
        return min(firsts, default=None)

    def leave(self, place: Place) -> None:
        """Do not look at an entry again as long as it is there, since a newer version wrote it."""
        self._names[place.state].add(place.name)
        self._left[place.state].add(place.name)

    def left(self, state: State) -> AbstractSet[str]:
        """Return the names of the entries in ``state`` that were left alone."""
        return self._left[state]

    def forget(self, state: State, gone: AbstractSet[str]) -> None:
        """Forget the entries that were left alone and are gone from ``state``.

        Other entries that are gone do no harm. They are forgotten when they are looked at.
        """
        self._left[state] -= gone
        self._names[state] -= gone
