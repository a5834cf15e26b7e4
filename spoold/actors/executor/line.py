"""The line: the entries that are ready for a slot of this executor. Each slot, in a thread of its own, takes from it.

Spec: spool-layout.md, "Overload" and "Attempts". An entry is *ready* once it was read and its build exists. It then
waits for a slot and for memory. ``ready`` says which entry begins next. ``seen`` has the entries that were not read
yet.

Nothing here survives the process: all of it is found again in the spool. Thread-safe.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

from spoold.actors.executor.admission import Memory
from spoold.actors.executor.ready import WAITING, AllReady, Place, Ready, Taken
from spoold.model.ids import Entry
from spoold.model.states import State


class Line:
    """All that is ready in one executor. ``person`` returns the person behind a uid, ``clock`` is the monotonic one.

    ``may_begin`` tells whether a person's entries may begin now, since their share of the spool has room for answers.
    ``memory`` is how many bytes all jobs may take together. ``slots`` is the number of slots.
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
        self._ready = AllReady(Memory(memory), slots, may_begin)
        self._closed = False

    def names(self, state: State) -> AbstractSet[str]:
        """Return the names of the entries from ``state`` that wait here."""
        return self._names[state]

    def has(self, place: Place) -> bool:
        """Tell whether an entry waits here."""
        return place.name in self._names[place.state]

    def has_some_of(self, person: int) -> bool:
        """Tell whether any entry of a person is ready."""
        return self._ready.has(person)

    @property
    def idle(self) -> bool:
        """Tell whether nothing is ready."""
        return not self._ready

    @property
    def length(self) -> int:
        """Return how many entries are ready."""
        return len(self._ready)

    @property
    def keeps_room(self) -> bool:
        """Tell whether room is kept for an entry."""
        return self._ready.keeps_room

    def keep_present(self, state: State, present: AbstractSet[str]) -> None:
        """Forget the entry that room is kept for, where it is not among the names ``present`` in ``state``.

        Other entries that are gone keep nobody waiting. A slot forgets such an entry when it comes to it.
        """
        with self._changed:
            if missing := self._ready.drop_missing(state, present):
                self._names[state].difference_update(place.name for place in missing)
                self._changed.notify()

    def ready(self, ready: Ready, owner: int, priority: int, arrival: float = 0.0) -> list[tuple[float, Place]]:
        """Let an entry whose build exists wait for a slot and for memory.

        Return the entries that leave the line for want of room, each with its arrival: this one, or ones after it.
        """
        with self._changed:
            self._names[ready.place.state].add(ready.place.name)
            gone = self._ready.add(self._person(owner), ready, priority, self._clock(), arrival)
            for _, other in gone:
                self._names[other.place.state].discard(other.place.name)
            self._changed.notify()
        return [(arrived, other.place) for arrived, other in gone]

    def has_room(self, person: int, entry: Entry, arrival: float, coming: int) -> bool:
        """Tell whether there is room for a person's entry beside ``coming`` other entries that are on their way."""
        with self._changed:
            return self._ready.has_room(person, entry, arrival, coming)

    def take(self) -> Taken | None:
        """Wait until there is work for a slot, and take it. Return None once the line is closed."""
        with self._changed:
            while not self._closed:
                if taken := self._ready.take(self._clock()):
                    self._changed.notify()  # the free memory may be enough for another slot's job too
                    return taken
                self._changed.wait()
        return None

    def ask_again(self) -> set[int]:
        """Make the slots ask again whether persons who might not begin may begin now. Return these persons."""
        with self._changed:
            if held := self._ready.ask_again():
                self._changed.notify_all()
            return held

    def begun(self, taken: Taken) -> None:
        """Note that a slot begins what it took. Its wait for the engine or for room on the disk is not charged."""
        with self._changed:
            taken.use.began = self._clock()

    def left(self, place: Place) -> None:
        """Note that an entry that a slot took was no longer where it had been."""
        with self._changed:
            self._names[place.state].discard(place.name)

    def ended(self, taken: Taken) -> bool:
        """Note that a slot is done with what it took. Return False where that was noted before."""
        with self._changed:
            if not self._ready.end(taken, self._clock()):
                return False
            if self._ready:
                self._changed.notify()
            return True

    def set_weights(self, weights: Mapping[int, float]) -> None:
        """Use other weights of persons. Persons without one have weight 1."""
        with self._changed:
            self._ready.set_weights(weights)

    def usage(self) -> dict[int, float] | None:
        """Return the slot-seconds that each person used lately, or None where no slot was used since the last call."""
        with self._changed:
            return self._ready.usage(self._clock())

    def close(self) -> None:
        """Give out nothing any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
