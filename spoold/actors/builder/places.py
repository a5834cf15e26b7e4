"""Places: the builds that wait and the builds that have a place, on disk and in the lanes at once.

Spec: spool-layout.md, "Turns". ``lanes`` decides which build is next. A build that is put back, to make room or after a
failure, waits in ``builds/new`` like all others. It moves there and into the lanes under one lock, so that nobody finds
it in between. A build that a newer version of spoold filed is left there. Thread-safe.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from spoold.actors.builder.lanes import Lanes
from spoold.config import BuilderSettings
from spoold.host import fsops
from spoold.host.clock import Clock
from spoold.host.metrics import BUILDS_RUNNING, BUILDS_WAITING
from spoold.host.persons import Persons
from spoold.model import ids
from spoold.model.errors import NewerFormatError
from spoold.model.ids import Entry, Hint
from spoold.model.states import Kind, State
from spoold.spool.builds import BuildStore
from spoold.spool.newer import LeftAlone

NEW = Kind.BUILD.directory(State.NEW)


class Places:
    """The places of one builder. ``clock`` is that of its spool."""

    def __init__(self, settings: BuilderSettings, builds: BuildStore, clock: Clock, newer: LeftAlone) -> None:
        self._builds = builds
        self._clock = clock
        self._newer = newer
        self._persons = Persons()
        self._lock = threading.Lock()
        self._lanes = Lanes(settings)
        self._left: set[Entry] = set()  # builds in new/ that a newer version filed
        self._rests_until = 0.0  # on the monotonic clock: until then the store counts as away
        self._closed = False

    @property
    def count(self) -> int:
        """Return how many builds can have a place at once."""
        return self._lanes.places

    @property
    def idle(self) -> bool:
        """Tell whether no build waits for a place or for its time."""
        return self._lanes.idle

    def set_weights(self, weights: Mapping[int, float]) -> None:
        """Use other weights of persons. Persons without one have weight 1."""
        with self._lock:
            self._lanes.set_weights(weights)

    def measure(self) -> None:
        """Measure how many builds have a place, and how many wait."""
        with self._lock:
            BUILDS_RUNNING.set(self._lanes.running)
            BUILDS_WAITING.set(self._lanes.waiting)

    def see(self, hints: Iterable[Hint] | None) -> None:
        """Let builds wait for their turn: those that ``hints`` name, or all that there are."""
        queue = self._builds.queue
        with self._lock:
            if hints is None:
                entries = queue.entries(State.NEW)
                self._left &= set(entries)
            else:
                seen = [hint for hint in hints if hint.directory == NEW]
                entries = [entry for hint in seen if (entry := ids.parse_entry(hint.name))]
            for entry in entries:
                known = entry in self._left or self._lanes.has(entry)
                since = None if known else fsops.mtime(queue.entry_path(State.NEW, entry))
                if since is not None:
                    due = queue.due(entry, since, self._clock) if entry.attempt > 1 else 0.0
                    self._lanes.add(entry, since, due)

    def give(self, begin: Callable[[Entry], object], end: Callable[[Entry], object]) -> None:
        """Call ``begin`` for each build that gets a place now, and ``end`` for each build that has to make room.

        This is due whenever a build comes or ends, and as time passes.
        """
        with self._lock:
            now = self._clock.monotonic()
            if self._lanes.idle or self._closed or now < self._rests_until:
                return
            for entry in self._lanes.start(self._askers(), now):
                begin(entry)
            for entry in self._lanes.stop(now):
                end(entry)

    def _askers(self) -> dict[str, set[int]]:
        """Return the persons who asked for each build."""
        self._persons.look()
        return {build: {self._persons.of(uid) for uid in uids} for build, uids in self._builds.uses.askers().items()}

    def ended(self, entry: Entry) -> None:
        """Free the place of a build, whatever became of the build."""
        with self._lock:
            self._lanes.ended(entry, self._clock.monotonic())

    def was_stopped(self, entry: Entry) -> bool:
        """Tell whether a build that has a place has been stopped to make room."""
        return self._lanes.was_stopped(entry)

    def put_back(self, entry: Entry, attempt: int, pause: float = 0.0) -> None:
        """Give a build up for now. It waits in ``builds/new``. This builder leaves it there for ``pause`` seconds."""
        with self._lock:
            if self._builds.queue.give_back(entry, State.BUILDING, attempt):
                not_before = self._clock.monotonic() + pause
                self._lanes.add(Entry(entry.id, attempt), self._clock.file_system(), not_before)

    def leave(self, entry: Entry, error: NewerFormatError) -> None:
        """Leave a build of a newer version where it is, in ``builds/new``, for a builder of that version."""
        self._newer.meet(error)
        with self._lock:
            self._left.add(entry)

    def rest(self, seconds: float) -> None:
        """Give no place for ``seconds``."""
        self._rests_until = self._clock.monotonic() + seconds

    def close(self) -> None:
        """Give no place any more."""
        with self._lock:
            self._closed = True
