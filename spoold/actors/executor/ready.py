"""The entries that are ready for a slot, and which of them begins next.

Spec: spool-layout.md, "Overload" and "Attempts". The next slot is for the owner who used fewer slot-seconds lately. One
owner's jobs go by priority. An owner whose next job does not fit into the free memory is passed over, and the next
owner is asked. Room is kept for the first owner passed over who has no job running (see ``admission``). Others then
begin only jobs that do not delay that owner's job. So small jobs of others cannot keep a big one waiting for ever. Jobs
of one owner do not pass each other, or the owner's small jobs would keep their own big one waiting.

Some owners had used less, and already waited when room began to be kept. They still go first, until they have used as
much. Owners who come later do not: by coming in turns they could delay the job for ever. Room stays kept for the same
job until it begins. It is given up when the job is gone or is no longer its owner's next, or when its owner may not
begin. The owner is then charged for the time. Otherwise an owner who gave up again and again would never use anything,
and always be first.

A job that takes more than a slot's part of the memory is charged as several slots.

Entries that were tried before (later attempts) run one at a time. So a job that kills its executor never again meets
the other jobs that it killed with it. Fresh and tried entries of one owner take turns. An owner is a person. Not
thread-safe. Times are the monotonic clock's.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from spoold.actors.executor.admission import MARGIN, Memory
from spoold.actors.executor.room import Room
from spoold.model import ids
from spoold.model.ids import Entry
from spoold.model.states import State
from spoold.model.timeshare import TimeShares, Use
from spoold.model.turns import BestTurns, Turns

WAITING = (State.NEW, State.BUILDING)  # states in which an entry waits for a slot
MOST = 4096  # entries that wait here, of all owners together


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
        """Tell whether nobody had claimed the entry yet: its build was there already, so it did not wait for it."""
        return self.state is State.NEW


class Ready(NamedTuple):
    """An entry whose build exists. Its container takes ``size`` bytes at most, its phases take ``seconds`` at most.

    ``lost`` says why its checker cannot be run. It is kept here, since a failed build is soon forgotten, maybe before a
    slot is free.
    """

    place: Place
    build_id: str
    size: int
    seconds: float
    lost: str = ""


class Taken(NamedTuple):
    """An entry that a slot took, the bytes and seconds that it may take, and the use that its owner is charged for."""

    place: Place
    build_id: str
    size: int
    seconds: float
    lost: str
    use: Use


class AllReady:
    """All that is ready in an executor of ``slots`` slots. ``may_begin`` tells whether a person's entries may begin."""

    def __init__(self, memory: Memory, slots: int, may_begin: Callable[[int], bool]) -> None:
        self._memory = memory
        self._slots = slots
        self._may_begin = may_begin
        self._room: Room | None = None
        self._times = TimeShares()
        self._fresh: BestTurns[Ready] = BestTurns(MOST)
        self._tried: BestTurns[Ready] = BestTurns(MOST)
        self._trying = False
        self._fresh_next: set[int] = set()  # persons whose last job had been tried before
        self._held: set[int] = set()  # persons whose next entry may not begin
        self._busy = 0  # slots that have work
        self._stirred = True  # a slot had work since anybody last asked for the usage

    def __len__(self) -> int:
        """Return how many entries are ready."""
        return len(self._fresh) + len(self._tried)

    def has(self, person: int) -> bool:
        """Tell whether any entry of a person is ready. Any thread may call this."""
        return self._fresh.has(person) or self._tried.has(person)

    def add(self, person: int, ready: Ready, priority: int, now: float, arrival: float) -> list[tuple[float, Ready]]:
        """Let an entry wait for a slot.

        Return the entries that have no room here, each with its arrival: this one, or ones after it.
        """
        self._times.come(person, now)
        return self._turns_of(ready.place.entry).admit(person, ready, priority, arrival)

    def has_room(self, person: int, entry: Entry, arrival: float, coming: int) -> bool:
        """Tell whether there is room for a person's entry beside ``coming`` other entries that are on their way."""
        return self._turns_of(entry).has_room(person, arrival, coming)

    def _turns_of(self, entry: Entry) -> BestTurns[Ready]:
        return self._fresh if entry.attempt == 1 else self._tried

    def take(self, now: float) -> Taken | None:
        """Take the entry that begins next, or None where nothing can begin now."""
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
                    self._times.bound(person, now)  # the person's own jobs have the memory
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
        """Find out whether room is still to be kept, and until when."""
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
        """Tell whether a person's next job, which fits, may begin before the job that room is kept for.

        ``passed`` are the persons who used less than this one.
        """
        room = self._room
        if room is None or person == room.person:
            return True
        ready = turns.next_of(person)
        if now + ready.seconds + MARGIN < room.shadow or ready.size <= room.beside:
            return not turns is room.turns is self._tried  # tried entries go one at a time
        if person not in room.ahead or room.person in passed:
            return False
        self._room = room._replace(shadow=math.inf)  # this person may delay that job
        return True

    def _ranked(self, now: float) -> Iterator[int]:
        """Yield the persons who may begin, those who used less first. Waiting for room in the spool earns no turns."""
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
        """Return where a person's next job is. None where all of theirs were tried before, and a tried one runs."""
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
        if not self.has(person):
            self._times.leave(person)
            self._fresh_next.discard(person)
        return ready

    def end(self, taken: Taken, now: float) -> bool:
        """Note that a slot is done with what it took. Return False where that was noted before."""
        if not self._memory.is_given(taken.use):
            return False
        self._count_idle(now)
        self._busy -= 1
        self._times.end(taken.use, now)
        self._memory.give_back(taken.use)
        if taken.place.entry.attempt > 1:
            self._trying = False
        return True

    def drop_missing(self, state: State, present: AbstractSet[str]) -> list[Place]:
        """Drop the job that room is kept for, if it came from ``state`` and is not among the names ``present`` there.

        It was cancelled, or another executor has it. If the same owner's next jobs are gone too, they are dropped as
        well. Return the places of all dropped jobs. A slot finds out itself about other jobs that are gone.
        """
        dropped: list[Place] = []
        while (room := self._room) and room.turns.has(room.person):
            place = room.turns.next_of(room.person).place
            if place.state is not state or place.name in present:
                break
            dropped.append(self._take_out(room.person, room.turns).place)
        return dropped

    def ask_again(self) -> set[int]:
        """Return who might not begin since the last call, also the person that room is kept for if they may not now."""
        if self._room and not self._may_begin(self._room.person):
            self._held.add(self._room.person)
        held, self._held = self._held, set()
        return held

    def set_weights(self, weights: Mapping[int, float]) -> None:
        """Use other weights of persons. Persons without one have weight 1."""
        self._times.set_weights(weights)

    def usage(self, now: float) -> dict[int, float] | None:
        """Return the slot-seconds that each person used lately, or None where no slot was used since the last call."""
        if not self._stirred:
            return None
        self._stirred = self._busy > 0
        return self._times.used(now)
