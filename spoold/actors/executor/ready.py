"""What is ready for a slot, and what of it begins next.

Spec: spool-layout.md, "Overload" and "Attempts". The next slot is for the owner who used fewer slot-seconds lately, and
one owner's jobs go by priority. Of the owners, in that order, the first one goes whose next job fits into the memory
that is free. One whose next job does not fit is passed over. But where nothing of theirs runs, room is kept for it (see
``admission``): nobody who used more begins before it. So many small jobs of one do not keep a big one of another
waiting for ever. An owner's own jobs do not pass each other: else their small ones would.

A job that takes more than a slot's part of the memory counts as so many slots.

What was tried before goes one at a time, so that a job that kills its executor meets the others that it killed with it
never again. Of one owner what is fresh and what was tried take turns. An owner is a person. Not thread-safe. Times are
the monotonic clock's.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from spoold.actors.executor.admission import Hold, Memory
from spoold.model import ids
from spoold.model.ids import Entry
from spoold.model.states import State
from spoold.model.timeshare import TimeShares, Use
from spoold.model.turns import Turns


class Place(NamedTuple):
    """Where an entry was seen."""

    state: State
    entry: Entry

    @property
    def name(self) -> str:
        """Return the entry's name there."""
        return ids.entry_name(self.state, self.entry)


class Ready(NamedTuple):
    """An entry whose build exists; its container takes ``size`` bytes at most."""

    place: Place
    build_id: str
    size: int


class Taken(NamedTuple):
    """An entry that a slot took, with the bytes that it may take, and what its owner is charged for that."""

    place: Place
    build_id: str
    size: int
    use: Use


class AllReady:
    """All that is ready in one executor of so many ``slots``; ``may_begin`` tells whether a person's may be begun."""

    def __init__(self, memory: Memory, slots: int, may_begin: Callable[[int], bool]) -> None:
        self._memory = memory
        self._slots = slots
        self._may_begin = may_begin
        self._hold = Hold()
        self._times = TimeShares()
        self._fresh: Turns[Ready] = Turns()
        self._tried: Turns[Ready] = Turns()
        self._trying = False
        self._fresh_next: set[int] = set()  # persons whose last job was one that had been tried
        self._held: set[int] = set()  # who may not begin, as far as it was asked
        self._busy = 0  # slots that have something
        self._stirred = True  # a slot had something since anybody asked who used what

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._fresh) + len(self._tried)

    def add(self, person: int, ready: Ready, priority: int, now: float) -> None:
        """Let an entry wait for a slot."""
        turns = self._fresh if ready.place.entry.attempt == 1 else self._tried
        turns.add(person, ready, priority)
        self._times.come(person, now)

    def take(self, now: float) -> Taken | None:
        """Take what begins next; None where nothing can now."""
        self._hold.pause(now)
        ranked, in_turn = self._ranked(now), True
        for person in ranked:
            turns = self._next_of(person)
            if turns is None:
                continue
            ready = turns.next_of(person)
            if self._memory.fits(ready.size):
                return self._begin(person, turns, now, in_turn=in_turn)
            if not self._memory.has(person) and self._hold.may(now):
                if slots := self._could_use(ranked):
                    self._hold.keep(ready, person, slots, now)
                return None
            in_turn = False
        return None

    def _ranked(self, now: float) -> Iterator[int]:
        """Yield the persons who may begin, who used less first. Waiting for room in the spool earns no turns."""
        persons = dict.fromkeys((*self._tried.owners(), *self._fresh.owners()))
        rank = self._times.ranks(now)
        order = [(rank(person), place, person) for place, person in enumerate(persons) if self._lets_begin(person, now)]
        heapq.heapify(order)
        while order:
            yield heapq.heappop(order)[-1]

    def _lets_begin(self, person: int, now: float) -> bool:
        may = self._may_begin(person)
        if may:
            self._times.come(person, now)
        else:
            self._held.add(person)
            self._times.leave(person)
        return may

    def _next_of(self, person: int) -> Turns[Ready] | None:
        """Return where a person's next job is; None where all were tried before, and another such runs."""
        if self._tried.has(person) and not self._trying:
            return self._fresh if self._fresh.has(person) and person in self._fresh_next else self._tried
        return self._fresh if self._fresh.has(person) else None

    def _could_use(self, persons: Iterator[int]) -> int:
        """Return how many of the slots that are idle these persons could use."""
        idle, jobs = self._slots - self._busy, 0
        for person in persons:
            turns = self._next_of(person)
            if turns and self._memory.fits(turns.next_of(person).size):
                jobs += turns.count(person)
            if jobs >= idle:
                break
        return min(idle, jobs)

    def _begin(self, person: int, turns: Turns[Ready], now: float, *, in_turn: bool) -> Taken:
        ready = turns.take_from(person)
        self._trying |= turns is self._tried
        (self._fresh_next.add if turns is self._tried else self._fresh_next.discard)(person)
        if not (self._fresh.has(person) or self._tried.has(person)):
            self._times.leave(person)
            self._fresh_next.discard(person)
        self._memory.take(person, ready.size)
        self._busy += 1
        self._stirred = True
        cost = max(1.0, self._slots * self._memory.part(ready.size))
        owed = self._hold.end(ready, person)
        return Taken(*ready, self._times.begin(person, now, cost=cost, owed=owed, in_turn=in_turn))

    def end(self, taken: Taken, now: float) -> None:
        """Take back what was taken."""
        self._hold.pause(now)
        self._busy -= 1
        self._times.end(taken.use, now)
        self._memory.give_back(taken.use.owner, taken.size)
        if taken.place.entry.attempt > 1:
            self._trying = False

    def kept(self, now: float) -> float | None:
        """Return after how many seconds something may begin for which room is kept from others now, None: no such."""
        return self._hold.left(now)

    def ask_again(self) -> set[int]:
        """Return who might not begin since the last call."""
        held, self._held = self._held, set()
        return held

    def weigh(self, weights: Mapping[int, float]) -> None:
        """Go by other weights of persons; what is not said is 1."""
        self._times.follow(weights)

    def usage(self, now: float) -> dict[int, float] | None:
        """Return the slot-seconds that each person used lately; None where no slot was used since the last call."""
        if not self._stirred:
            return None
        self._stirred = self._busy > 0
        return self._times.used(now)
