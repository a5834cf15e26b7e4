"""Finding: what there is for an executor, by a scan of its directories or by what an event names.

Spec: spool-layout.md, "Transitions" and "Overload". A hint is no more than a name, and the entry is looked at like any
other. A scan finds what no event told, and what an earlier executor had: nothing of that is written down anywhere else.
Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from spoold.actors.executor.answering import Answering
from spoold.actors.executor.building import Building
from spoold.actors.executor.line import Line
from spoold.actors.executor.ready import WAITING, Place
from spoold.actors.executor.seen import FOUND, TOLD, AllSeen
from spoold.host import fsops
from spoold.model import ids
from spoold.model.ids import Hint
from spoold.model.states import Kind, State
from spoold.spool.queue import Queue

BEGUN, BUILT = (Kind.BUILD.directory(state) for state in (State.BUILDING, State.DONE))


class Finder:
    """Finds what is in ``queue``, or has happened to builds, and is not known yet to any of those who are given."""

    watched = (State.NEW, BEGUN, BUILT)  # directories below the spool's root in which a change is worth a step

    def __init__(self, queue: Queue, seen: AllSeen, line: Line, building: Building, answering: Answering) -> None:
        self._queue = queue
        self._seen = seen
        self._line = line
        self._building = building
        self._answering = answering

    def scan(self) -> None:
        """See all that was not known before, the oldest first: whoever waited for a build is not last because of it."""
        aged = [(mtime, place) for state in WAITING for mtime, place in self._fresh_in(state)]
        for _, place in sorted(aged):
            self._seen.see(place, FOUND)
        self._building.take_results()

    def _fresh_in(self, state: State) -> Iterator[tuple[float, Place]]:
        """Yield the entries in ``state`` that were not known before, and their mtimes."""
        present = set(fsops.names(self._queue.path(state)))
        self._seen.keep_present(state, present)
        self._line.keep_present(state, present)
        for name in present - self._seen.names(state) - self._line.names(state):
            entry = ids.parse_entry(name)
            if entry and entry not in self._building and entry not in self._answering:
                mtime = fsops.mtime(self._queue.entry_path(state, entry))
                if mtime is not None:
                    yield mtime, Place(state, entry)

    def heed(self, hints: Iterable[Hint]) -> None:
        """See what hints name, and what they tell of builds."""
        for hint in hints:
            entry = ids.parse_entry(hint.name)
            if hint.directory == BUILT:
                self._building.take_results([hint.name.removesuffix(ids.response_name(""))])
            elif entry and hint.directory == BEGUN:
                self._building.begun(entry.id)
            elif entry and entry not in self._answering:
                place = Place(State.NEW, entry)
                if not self._line.has(place):
                    self._seen.see(place, TOLD)
