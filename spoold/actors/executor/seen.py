"""What is seen: all that an executor knows of and has to look at, now or later.

Spec: spool-layout.md, "Overload" and "Attempts". An entry is *seen*: its name was told or found. It may *rest*, since
its attempt is not due yet, or be *left*, since a newer version wrote it. An entry is as large as its owner likes. So
the owner on whose entries looks took least time is looked at next. An owner is a person, whatever uids are theirs.

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

TOLD, FOUND = -1, -2  # stand for owners that no name tells and that were not read yet: told by an event, or found
MOST = 20_000  # entries of one owner that events may bring; the others are found when these have gone


class Seen(NamedTuple):
    """An entry that is to be looked at; ``rested`` when it was, and was found not to be due yet."""

    place: Place
    rested: bool = False


class AllSeen:
    """All that one executor has to look at, now or later; ``person`` tells who stands behind a uid."""

    def __init__(self, person: Callable[[int], int] = lambda uid: uid) -> None:
        self._person = person
        self._names: dict[State, set[str]] = {state: set() for state in WAITING}
        self._left: dict[State, set[str]] = {state: set() for state in WAITING}  # of these, those of a newer version
        self._turns: TimedTurns[Seen] = TimedTurns()
        self._resting: list[tuple[float, Place]] = []
        self._left_to_others: list[tuple[float, Place]] = []
        self._counts: dict[int, int] = {}  # how many of each person's these are

    def __bool__(self) -> bool:
        """Tell whether there is something to look at now."""
        return bool(self._turns)

    def names(self, state: State) -> AbstractSet[str]:
        """Return the names of what is here from ``state``."""
        return self._names[state]

    def see(self, place: Place, unnamed: int) -> bool:
        """Let an entry be looked at in its owner's turn, unless it is here already; False where there are too many.

        ``unnamed`` stands for the owner of one whose name does not tell.
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
        """Let an entry that is another executor's be looked at if it is still there then; False for more than ``most``.

        So many of each owner's wait so.
        """
        person = self.person_of(place.entry, FOUND)
        count = self._counts.get(person, 0)
        if place.name in self._names[place.state]:
            return True
        if count >= most:
            return False
        self._counts[person] = count + 1
        self._names[place.state].add(place.name)
        heapq.heappush(self._left_to_others, (until, place))
        return True

    def has_room_later(self, entry: Entry, most: int) -> bool:
        """Tell whether ``see_later`` would have room for one more entry of an owner's; for any thread."""
        return self._counts.get(self.person_of(entry, FOUND), 0) < most

    def count(self, person: int) -> int:
        """Return how many of a person's are to be looked at now."""
        return self._turns.count(person)

    def person_of(self, entry: Entry, unnamed: int) -> int:
        """Return the person whose an entry is."""
        return self._person(unnamed if entry.owner is None else entry.owner)

    def take(self, now: float) -> Seen | None:
        """Take the next entry to be looked at; it is not here any more, unless it is put here again.

        Of one owner those that have rested go first. How long the look took is to be said to ``looked``.
        """
        while self._resting and self._resting[0][0] <= now:
            rested = heapq.heappop(self._resting)[1]
            self._turns.add(self.person_of(rested.entry, FOUND), Seen(rested, rested=True), priority=1)
        while self._left_to_others and self._left_to_others[0][0] <= now:
            left = heapq.heappop(self._left_to_others)[1]
            person = self.person_of(left.entry, FOUND)
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
        """Return when the next one that rests is due, or that is left to others."""
        return min((waiting[0][0] for waiting in (self._resting, self._left_to_others) if waiting), default=None)

    def leave(self, place: Place) -> None:
        """Look at an entry no more for as long as it is there: a newer version wrote it."""
        self._names[place.state].add(place.name)
        self._left[place.state].add(place.name)

    def left(self, state: State) -> AbstractSet[str]:
        """Return the names of what was left alone in ``state``."""
        return self._left[state]

    def forget(self, state: State, gone: AbstractSet[str]) -> None:
        """Forget what was left alone and is not in ``state`` any more.

        Other entries that are gone do no harm. They are forgotten when they are looked at.
        """
        self._left[state] -= gone
        self._names[state] -= gone
