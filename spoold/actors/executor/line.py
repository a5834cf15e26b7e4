"""The line: what this executor knows of and has not begun, as small things in memory that say where an entry lies.

Spec: spool-layout.md, "Overload" and "Attempts". An entry is *seen* (its name was told or found), perhaps *rests* (its
attempt is not due yet), and is *ready* once it was read and its build exists: then it waits for a slot, and for memory.
``ready`` says which of it begins next. An entry is as large as its owner likes, so the owner on whose entries looks
took least time is looked at next. An owner is a person, whatever uids are theirs.

Nothing here survives the process: all of it is found again in the spool. Thread-safe.
"""

from __future__ import annotations

import heapq
import sys
import threading
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from spoold.actors.executor.admission import Memory
from spoold.actors.executor.ready import AllReady, Place, Ready, Taken
from spoold.model.levels import TimedTurns
from spoold.model.states import State

WAITING = (State.NEW, State.BUILDING)  # states in which an entry waits for a slot
TOLD, FOUND = -1, -2  # stand for owners that no name tells and that were not read yet: told by an event, or found
MOST = 200_000  # entries of one owner that a scan may bring; the others are found when these have gone


class Seen(NamedTuple):
    """An entry that is to be looked at; ``rested`` when it was, and was found not to be due yet."""

    place: Place
    rested: bool = False


class Line:
    """All that waits in one executor; ``person`` tells who stands behind a uid, ``clock`` is the monotonic one.

    ``may_begin`` tells whether a person's entries may be begun now: their share of the spool has room for answers.
    ``memory`` is what jobs may take together, in bytes, and ``slots`` how many there are.
    """

    def __init__(
        self,
        person: Callable[[int], int] = lambda uid: uid,
        clock: Callable[[], float] = time.monotonic,
        may_begin: Callable[[int], bool] = lambda _: True,
        *,
        memory: int = sys.maxsize,
        slots: int = 1,
    ) -> None:
        self._person = person
        self._clock = clock
        self._changed = threading.Condition()
        self._names: dict[State, set[str]] = {state: set() for state in WAITING}
        self._left: dict[State, set[str]] = {
            state: set() for state in WAITING
        }  # of these, what is not for this version
        self._seen: TimedTurns[Seen] = TimedTurns()
        self._resting: list[tuple[float, Place]] = []
        self._ready = AllReady(Memory(memory), slots, may_begin)
        self._closed = False

    def names(self, state: State) -> AbstractSet[str]:
        """Return the names of what waits here from ``state``."""
        return self._names[state]

    @property
    def idle(self) -> bool:
        """Tell whether nothing is ready."""
        return not self._ready

    @property
    def length(self) -> int:
        """Return how many are ready."""
        return len(self._ready)

    def see(self, place: Place, unnamed: int) -> None:
        """Let an entry be looked at in its owner's turn, unless it is in the line already.

        ``unnamed`` stands for the owner of one whose name does not tell.
        """
        person = self._person_of(place, unnamed)
        with self._changed:
            names = self._names[place.state]
            if place.name not in names and self._seen.count(person) < MOST:
                self._seen.add(person, Seen(place))
                names.add(place.name)

    def _person_of(self, place: Place, unnamed: int) -> int:
        return self._person(unnamed if place.entry.owner is None else place.entry.owner)

    def look(self, now: float) -> Seen | None:
        """Take the next entry to be looked at; it is not in the line any more, unless it is put there again.

        Of one owner those that have rested go first. How long the look took is to be said to ``looked``.
        """
        with self._changed:
            while self._resting and self._resting[0][0] <= now:
                rested = heapq.heappop(self._resting)[1]
                self._seen.add(self._person_of(rested, FOUND), Seen(rested, rested=True), priority=1)
            seen = self._seen.take()
            if seen:
                self._names[seen.place.state].discard(seen.place.name)
            return seen

    def looked(self, seconds: float) -> None:
        """Charge the owner of the entry that was looked at last with the time that it took."""
        with self._changed:
            self._seen.charge(seconds)

    def rest(self, place: Place, until: float) -> None:
        """Let an entry be looked at again at ``until``, on the monotonic clock."""
        with self._changed:
            self._names[place.state].add(place.name)
            heapq.heappush(self._resting, (until, place))

    def leave(self, place: Place) -> None:
        """Look at an entry no more for as long as it is there: a newer version wrote it."""
        name = place.name
        with self._changed:
            self._names[place.state].add(name)
            self._left[place.state].add(name)

    def keep_present(self, state: State, present: AbstractSet[str]) -> None:
        """Forget what is not among the names ``present`` in ``state``, of what was left alone or has room kept for it.

        What else waits here and is gone keeps nobody from anything, and is forgotten when a slot comes to it.
        """
        with self._changed:
            gone = self._left[state] - present
            self._left[state] -= gone
            self._names[state] -= gone
            if missing := self._ready.drop_missing(state, present):
                self._names[state].difference_update(place.name for place in missing)
                self._changed.notify()

    @property
    def rests_until(self) -> float | None:
        """Return when the next one that rests is due."""
        with self._changed:
            return self._resting[0][0] if self._resting else None

    @property
    def unseen(self) -> bool:
        """Tell whether there is something to look at."""
        return bool(self._seen)

    def ready(self, ready: Ready, owner: int, priority: int) -> None:
        """Let an entry, whose build exists, wait for a slot, and until there is memory for it."""
        with self._changed:
            self._names[ready.place.state].add(ready.place.name)
            self._ready.add(self._person(owner), ready, priority, self._clock())
            self._changed.notify()

    def take(self) -> Taken | None:
        """Wait until there is work for a slot, and take it; None once the line is closed."""
        with self._changed:
            while not self._closed:
                if taken := self._ready.take(self._clock()):
                    self._changed.notify()  # the memory that freed up may be enough for another slot's as well
                    return taken
                self._changed.wait()
        return None

    def ask_again(self) -> set[int]:
        """Have slots look again whether those who might not begin may now; return who that was."""
        with self._changed:
            if held := self._ready.ask_again():
                self._changed.notify_all()
            return held

    def begun(self, taken: Taken) -> None:
        """Note that a slot begins with what it took: the wait for the engine, or for room on the disk, costs nobody."""
        with self._changed:
            taken.use.began = self._clock()

    def left(self, place: Place) -> None:
        """Note that an entry that was taken is not where it was any more."""
        with self._changed:
            self._names[place.state].discard(place.name)

    def ended(self, taken: Taken) -> None:
        """Note that a slot has done with what it took. It has to ask for more: what can begin now is found then."""
        with self._changed:
            self._ready.end(taken, self._clock())

    def set_weights(self, weights: Mapping[int, float]) -> None:
        """Go by other weights of persons; what is not said is 1."""
        with self._changed:
            self._ready.set_weights(weights)

    def usage(self) -> dict[int, float] | None:
        """Return the slot-seconds that each person used lately; None where no slot was used since the last call."""
        with self._changed:
            return self._ready.usage(self._clock())

    def close(self) -> None:
        """Give out nothing any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
