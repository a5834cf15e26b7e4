"""The submissions in ``building/`` that wait at one executor: for which build, and until when.

Spec: spool-layout.md, "Transitions" and "Overload". They are found by their build and by the end of their wait, without
a look at all others, since tens of thousands may wait for one build. Waits whose time is over are ended in turns: the
owner is next whose waits took the least time to end so far. An owner is a person. Not thread-safe.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Literal, NamedTuple

from msgspec import UNSET, UnsetType

from spoold.model.ids import Entry
from spoold.model.levels import TimedTurns
from spoold.model.response import Fetching, WaitingFor
from spoold.model.submission import Origin

BuildState = Literal["queued", "building"]


class Wait(NamedTuple):
    """A submission that waits for a build, until a time on the monotonic clock (None: for ever)."""

    entry: Entry
    build_id: str
    state: BuildState
    until: float | None
    origin: Origin
    fetching: Fetching | UnsetType = UNSET

    @property
    def uid(self) -> int:
        """Return its owner's uid."""
        return self.origin.uid

    @property
    def waiting_for(self) -> WaitingFor:
        """Return what its owner is shown."""
        return WaitingFor(build_id=self.build_id, state=self.state, fetching=self.fetching)


class Waits:
    """All submissions that wait. ``person`` returns the person behind a uid."""

    def __init__(self, person: Callable[[int], int] = lambda uid: uid) -> None:
        self._person = person
        self._waits: dict[Entry, Wait] = {}
        self._of_build: dict[str, set[Entry]] = {}
        self._ends: list[tuple[float, Entry]] = []
        self._over: TimedTurns[tuple[float, Entry]] = TimedTurns()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waits)

    def __contains__(self, entry: Entry) -> bool:
        """Tell whether a submission waits."""
        return entry in self._waits

    def add(self, wait: Wait) -> None:
        """Note a submission that waits."""
        self._waits[wait.entry] = wait
        self._of_build.setdefault(wait.build_id, set()).add(wait.entry)
        if wait.until is not None:
            heapq.heappush(self._ends, (wait.until, wait.entry))

    def builds(self) -> list[str]:
        """Return the builds that something waits for."""
        return list(self._of_build)

    def begun(self, build_id: str) -> list[Entry]:
        """Note that a build has begun. Return the submissions that did not know it yet."""
        told = [entry for entry in self._of_build.get(build_id, ()) if self._waits[entry].state == "queued"]
        for entry in told:
            self._waits[entry] = self._waits[entry]._replace(state="building")
        return told

    def fetched(self, build_id: str, fetching: Fetching) -> list[Entry]:
        """Note how much a build has fetched. Return the submissions that wait for it."""
        told = list(self._of_build.get(build_id, ()))
        for entry in told:
            self._waits[entry] = self._waits[entry]._replace(state="building", fetching=fetching)
        return told

    def get(self, entry: Entry) -> Wait | None:
        """Return what a submission waits for, None where it does not wait."""
        return self._waits.get(entry)

    def end(self, build_id: str) -> list[Wait]:
        """Remove the waits for a build, and return them."""
        ended = [self._waits.pop(entry) for entry in self._of_build.pop(build_id, ())]
        if not self._waits:
            self._ends.clear()  # otherwise times that never come would pile up
            self._over.clear()
        return ended

    def overdue(self, now: float) -> Wait | None:
        """Remove the next wait whose time is over, and return it. None where there is none.

        The caller then tells ``ended`` how long it took to end it.
        """
        while self._ends and self._ends[0][0] <= now:
            until, entry = heapq.heappop(self._ends)
            if wait := self._lasts(until, entry):
                self._over.add(self._person(wait.uid), (until, entry))
        while over := self._over.take():
            if wait := self._lasts(*over):
                self._forget(wait)
                return self._waits.pop(wait.entry)
        return None

    def ended(self, seconds: float) -> None:
        """Charge the owner of the wait that was returned last with the time that ending it took."""
        self._over.charge(seconds)

    def _lasts(self, until: float, entry: Entry) -> Wait | None:
        """Return the wait of an entry, if it still ends at ``until``."""
        wait = self._waits.get(entry)
        return wait if wait and wait.until == until else None

    def is_any_over(self, now: float) -> bool:
        """Tell whether there may be a wait whose time is over."""
        return bool(self._over) or (bool(self._ends) and self._ends[0][0] <= now)

    def _forget(self, wait: Wait) -> None:
        entries = self._of_build[wait.build_id]
        entries.discard(wait.entry)
        if not entries:
            del self._of_build[wait.build_id]

    @property
    def next_end(self) -> float | None:
        """Return when the next wait may be over."""
        return self._ends[0][0] if self._ends else None

    def clear(self) -> None:
        """Remove all waits."""
        self._waits.clear()
        self._of_build.clear()
        self._ends.clear()
        self._over.clear()
