"""What is ready for a slot, and what of it begins next.

Spec: spool-layout.md, "Overload" and "Attempts". The next slot is for the owner who used fewer slot-seconds lately, and
one owner's jobs go by priority. Of the owners, in that order, the first one goes whose next job fits into the memory
that is free. One whose next job does not fit is passed over. But for the first of them of whom nothing runs, room is
kept (see ``admission``): others begin only what does not put off that job. So small jobs of others do not keep a big
one waiting for ever. An owner's own jobs do not pass each other: else their small ones would.

Those who waited already when room began to be kept, and had used less, go first until they have used as much. Whoever
comes later does not: they could take turns to come. Room stays kept for the same job until that begins, unless it is
not its owner's next any more, or is gone. Then its owner is charged for the time: whoever gave up again and again and
never used anything would be the first each time.

A job that takes more than a slot's part of the memory counts as so many slots.

What was tried before goes one at a time, so that a job that kills its executor meets the others that it killed with it
never again. Of one owner what is fresh and what was tried take turns. An owner is a person. Not thread-safe. Times are
the monotonic clock's.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from spoold.actors.executor.admission import MARGIN, Memory
from spoold.model import ids
from spoold.model.ids import Entry
from spoold.model.states import State
from spoold.model.timeshare import TimeShares, Use
from spoold.model.turns import BestTurns, Turns

WAITING = (State.NEW, State.BUILDING)  # states in which an entry waits for a slot
MOST = 4096  # entries that wait here, all owners' together


class Place(NamedTuple):
    """Where an entry was seen."""

    state: State
    entry: Entry

    @property
    def name(self) -> str:
        """Return the entry's name there."""
        return ids.entry_name(self.state, self.entry)

    @property
    def is_unclaimed(self) -> bool:
        """Tell whether nobody had taken the entry yet: it did not wait for its build, which was there already."""
        return self.state is State.NEW


class Ready(NamedTuple):
    """An entry whose build exists; its container takes ``size`` bytes at most, and its phases so many ``seconds``.

    ``lost`` is why its checker cannot be run: a build that failed is forgotten soon, and the line may be longer.
    """

    place: Place
    build_id: str
    size: int
    seconds: float
    lost: str = ""


class Taken(NamedTuple):
    """An entry that a slot took, with the bytes and seconds that it may take, and what its owner is charged for it."""

    place: Place
    build_id: str
    size: int
    seconds: float
    lost: str
    use: Use


class Room(NamedTuple):
    """Room that is kept since ``began`` for a person's next job, which does not fit.

    ``shadow`` is when that job begins at the latest. By then so many bytes are left ``beside`` it. ``ahead`` are the
    persons who waited already and had used less. Since ``since`` so many ``slots`` are idle because room is kept, and
    the person owes ``owed`` slot-seconds for those before.
    """

    person: int
    turns: Turns[Ready]
    job: Ready
    ahead: frozenset[int]
    shadow: float
    beside: int
    began: float
    since: float
    slots: int = 0
    owed: float = 0.0


class AllReady:
    """All that is ready in one executor of so many ``slots``; ``may_begin`` tells whether a person's may be begun."""

    def __init__(self, memory: Memory, slots: int, may_begin: Callable[[int], bool]) -> None:
        self._memory = memory
        self._slots = slots
        self._may_begin = may_begin
        self._room: Room | None = None
        self._times = TimeShares()
        self._fresh: BestTurns[Ready] = BestTurns(MOST)
        self._tried: BestTurns[Ready] = BestTurns(MOST)
        self._trying = False
        self._fresh_next: set[int] = set()  # persons whose last job was one that had been tried
        self._held: set[int] = set()  # who may not begin, as far as it was asked
        self._busy = 0  # slots that have something
        self._stirred = True  # a slot had something since anybody asked who used what

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._fresh) + len(self._tried)

    def add(self, person: int, ready: Ready, priority: int, now: float, arrival: float) -> list[tuple[float, Ready]]:
        """Let an entry wait for a slot; return what has no room here, each with its arrival: it, or ones after it."""
        self._times.come(person, now)
        return self._turns_of(ready.place.entry).admit(person, ready, priority, arrival)

    def has_room(self, person: int, entry: Entry, arrival: float, coming: int) -> bool:
        """Tell whether there is room for an entry of a person's beside so many others that are ``coming``."""
        return self._turns_of(entry).has_room(person, arrival, coming)

    def _turns_of(self, entry: Entry) -> BestTurns[Ready]:
        return self._fresh if entry.attempt == 1 else self._tried

    def take(self, now: float) -> Taken | None:
        """Take what begins next; None where nothing can now."""
        self._look_at_room(now)
        passed: list[int] = []
        held_back, in_turn = 0, True
        for person in self._ranked(now):
            turns = self._next_of(person)
            if turns is None:
                continue
            ready = turns.next_of(person)
            if not self._memory.fits(ready.size):
                if self._memory.has(person):
                    self._times.bound(person, now)  # their own jobs are in the way
                    passed.append(person)
                    continue
                if self._room is None:
                    self._keep_room(person, turns, frozenset(passed), now)
            elif self._may_begin_before(person, turns, passed, now):
                return self._begin(person, turns, now, in_turn=in_turn)
            else:
                held_back += turns.count(person)
            passed.append(person)
            in_turn = False
        if self._room:
            self._room = self._room._replace(slots=min(self._slots - self._busy, held_back))
        return None

    # -- Room that is kept for one job.

    @property
    def keeps_room(self) -> bool:
        """Tell whether room is kept for a job."""
        return self._room is not None

    def _keep_room(self, person: int, turns: Turns[Ready], ahead: frozenset[int], now: float) -> None:
        job = turns.next_of(person)
        self._room = Room(person, turns, job, ahead, *self._memory.room_for(job.size), began=now, since=now)

    def _look_at_room(self, now: float) -> None:
        """See whether room is to be kept on, and for how long yet."""
        self._count_idle(now)
        room = self._room
        if room is None:
            return
        turns = self._next_of(room.person)
        if turns is room.turns and turns.next_of(room.person) is room.job and self._lets_begin(room.person, now):
            shadow, beside = self._memory.room_for(room.job.size)
            self._room = room._replace(shadow=min(room.shadow, shadow), beside=beside)
        else:
            self._end_room(room, now - room.began, now)

    def _end_room(self, room: Room, wasted: float, now: float) -> None:
        self._times.charge(room.person, room.owed + wasted, now)
        self._room = None

    def _count_idle(self, now: float) -> None:
        """Count the slots that were idle until now because room is kept."""
        if room := self._room:
            self._room = room._replace(slots=0, since=now, owed=room.owed + room.slots * (now - room.since))

    def _may_begin_before(self, person: int, turns: Turns[Ready], passed: list[int], now: float) -> bool:
        """Tell whether room that is kept lets a person's next job begin, which fits; ``passed`` used less than they."""
        room = self._room
        if room is None or person == room.person:
            return True
        ready = turns.next_of(person)
        if now + ready.seconds + MARGIN < room.shadow or ready.size <= room.beside:
            return not turns is room.turns is self._tried  # what was tried goes one at a time
        if person not in room.ahead or room.person in passed:
            return False
        self._room = room._replace(shadow=math.inf)  # it is theirs to put off
        return True

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

    def _begin(self, person: int, turns: Turns[Ready], now: float, *, in_turn: bool) -> Taken:
        self._trying |= turns is self._tried
        (self._fresh_next.add if turns is self._tried else self._fresh_next.discard)(person)
        ready = self._take_out(person, turns)
        self._busy += 1
        self._stirred = True
        cost = max(1.0, self._slots * self._memory.part(ready.size))
        use = self._times.begin(person, now, cost=cost, in_turn=in_turn)
        if self._room and self._room.job is ready:
            self._end_room(self._room, 0.0, now)
        self._memory.take(use, ready.size, ready.seconds)
        return Taken(*ready, use)

    def _take_out(self, person: int, turns: Turns[Ready]) -> Ready:
        ready = turns.take_from(person)
        if not (self._fresh.has(person) or self._tried.has(person)):
            self._times.leave(person)
            self._fresh_next.discard(person)
        return ready

    def end(self, taken: Taken, now: float) -> None:
        """Take back what was taken."""
        self._count_idle(now)
        self._busy -= 1
        self._times.end(taken.use, now)
        self._memory.give_back(taken.use)
        if taken.place.entry.attempt > 1:
            self._trying = False

    def drop_missing(self, state: State, present: AbstractSet[str]) -> list[Place]:
        """Drop the job that room is kept for if it came from ``state`` and is not among the names ``present`` there.

        It was cancelled, or another executor has it. What follows of the same owner's and is gone as well goes too.
        Return their places. Others that are gone are found so in a slot.
        """
        dropped: list[Place] = []
        while (room := self._room) and room.turns.has(room.person):
            place = room.turns.next_of(room.person).place
            if place.state is not state or place.name in present:
                break
            dropped.append(self._take_out(room.person, room.turns).place)
        return dropped

    def ask_again(self) -> set[int]:
        """Return who might not begin since the last call, and whoever room is kept for if they may not now."""
        if self._room and not self._may_begin(self._room.person):
            self._held.add(self._room.person)
        held, self._held = self._held, set()
        return held

    def set_weights(self, weights: Mapping[int, float]) -> None:
        """Go by other weights of persons; what is not said is 1."""
        self._times.set_weights(weights)

    def usage(self, now: float) -> dict[int, float] | None:
        """Return the slot-seconds that each person used lately; None where no slot was used since the last call."""
        if not self._stirred:
            return None
        self._stirred = self._busy > 0
        return self._times.used(now)
