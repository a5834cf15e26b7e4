"""Lanes: which of the waiting builds is next, so that one client's builds do not keep another's waiting.

Spec: spool-layout.md, "Turns". Nobody can tell beforehand how long a build takes. So each build begins in the quick
lane, which has ``parallel`` places. After ``patience`` seconds there it has to make room as soon as another build wants
its place. It then moves on to the slow lane, which has ``slow`` places, and may take all the time that it is allowed
there. If it cannot have a place in the slow lane, it is stopped and put back, and waits for one. So a build that nobody
has tried yet waits for a few times ``patience`` at most, whatever else is being built. While nothing waits, no build is
stopped.

In both lanes the next client is the one who had less time in places lately (``model.timeshare``). A client's
oldest build is first. One client has at most half of the slow lane. A build that several clients asked for comes
in the turn of the client who is first, and is charged to that client. A client is a person, with all uids that are
theirs.

Nothing here touches the machine or survives this process. Builds that wait are in ``builds/new``, and the next builder
simply tries them again. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

from spoold.config import BuilderSettings
from spoold.model.ids import Entry
from spoold.model.timeshare import Rank, TimeShares, Use

NOBODY = -1  # stands for the client of builds that no submission asked for
Askers = Mapping[str, AbstractSet[int]]


class Waiting(NamedTuple):
    """A build that waits. ``since`` is its mtime. It may not begin before ``not_before``, on the monotonic clock."""

    entry: Entry
    since: float
    not_before: float = 0.0


class Turn(NamedTuple):
    """The build that is next, and the client whose turn it is."""

    build: Waiting
    client: int


@dataclass
class Running:
    """A build that has a place, in a client's turn."""

    entry: Entry
    use: Use
    slow: bool
    stopped: bool = False


class Lanes:
    """The builds of one builder. Times are the monotonic clock's."""

    def __init__(self, settings: BuilderSettings) -> None:
        self._settings = settings
        self._waiting: dict[str, Waiting] = {}
        self._running: dict[str, Running] = {}
        self._known_slow: set[str] = set()
        self._times = TimeShares()
        self._clients: set[int] = set()  # clients for whom something waited at the last look

    @property
    def places(self) -> int:
        """Return how many builds can run at once."""
        return self._settings.parallel + self._settings.slow

    @property
    def running(self) -> int:
        """Return how many builds have a place."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Return how many builds have no place yet."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Tell whether no build waits for a place or for its time."""
        return not self._waiting

    def has(self, entry: Entry) -> bool:
        """Tell whether a build is known. A build that runs is known, and is looked at again when it has ended."""
        waiting = self._waiting.get(entry.id)
        return entry.id in self._running or (waiting is not None and waiting.entry == entry)

    def add(self, entry: Entry, since: float, not_before: float = 0.0) -> None:
        """Let a build wait for its turn."""
        self._waiting[entry.id] = Waiting(entry, since, not_before)

    def set_weights(self, weights: Mapping[int, float]) -> None:
        """Use other weights of clients. Clients without one have weight 1."""
        self._times.set_weights(weights)

    def ended(self, entry: Entry, now: float) -> None:
        """Free the place of a build that ended, was put back, or turned out to be another builder's."""
        self._times.end(self._running.pop(entry.id).use, now)
        if entry.id not in self._waiting:
            self._known_slow.discard(entry.id)

    def was_stopped(self, entry: Entry) -> bool:
        """Tell whether a running build has been stopped to make room."""
        return self._running[entry.id].stopped

    def start(self, askers: Askers, now: float) -> list[Entry]:
        """Give places to builds, and return these builds. ``askers`` are the clients who asked for each build.

        Call ``stop`` after this, for the builds that still wait then.
        """
        started = []
        fresh, known = self._ready(now)
        self._note_clients({client for each in (*fresh, *known) for client in _clients(each, askers)}, now)
        while fresh and self._makes_quick_place(now) and (turn := self._first(fresh, askers, now)):
            started.append(self._begin(turn, now, slow=False))
        while turn := self._first(known, askers, now, self._has_slow_place):
            started.append(self._begin(turn, now, slow=True))
        return started

    def _note_clients(self, clients: set[int], now: float) -> None:
        for client in self._clients - clients:
            self._times.leave(client)
        for client in clients:
            self._times.come(client, now)
        self._clients = clients

    def stop(self, now: float) -> list[Entry]:
        """Return the builds to stop, since others need their places. Builds that are still stopping are in it again."""
        fresh, _ = self._ready(now)
        stopping = sum(each.stopped for each in self._running.values())
        for each in self._overdue(now)[: max(0, len(fresh) - stopping)]:
            each.stopped = True
            self._known_slow.add(each.entry.id)
        return [each.entry for each in self._running.values() if each.stopped]

    def _ready(self, now: float) -> tuple[list[Waiting], list[Waiting]]:
        """Return the builds whose time has come, oldest first: those of the quick lane, and those of the slow lane."""
        ready = [each for id_, each in self._waiting.items() if each.not_before <= now and id_ not in self._running]
        ready.sort(key=lambda each: (each.since, each.entry))
        fresh = [each for each in ready if each.entry.id not in self._known_slow]
        return fresh, [each for each in ready if each.entry.id in self._known_slow]

    def _first(
        self, builds: list[Waiting], askers: Askers, now: float, may: Callable[[int], bool] = lambda _: True
    ) -> Turn | None:
        """Take the build whose turn it is out of ``builds``.

        None where no client with a build here ``may`` start one.
        """
        rank = self._times.ranks(now)
        ranks: dict[int, Rank] = {client: rank(client) for client in self._clients if may(client)}
        turns = [
            (ranks[client], each.since, Turn(each, client))
            for each in builds
            for client in _clients(each, askers)
            if client in ranks
        ]
        if not turns:
            return None
        turn = min(turns, key=lambda found: found[:2])[2]
        builds.remove(turn.build)
        return turn

    def _begin(self, turn: Turn, now: float, *, slow: bool) -> Entry:
        entry = self._waiting.pop(turn.build.entry.id).entry
        self._running[entry.id] = Running(entry, self._times.begin(turn.client, now), slow)
        return entry

    def _makes_quick_place(self, now: float) -> bool:
        """Tell whether the quick lane has a place. Move an overdue build on to the slow lane where that makes one."""
        if self._running_in(slow=False) < self._settings.parallel:
            return True
        for each in self._overdue(now):
            if self._has_slow_place(each.use.owner):
                each.slow = True
                return True
        return False

    def _overdue(self, now: float) -> list[Running]:
        """Return the builds of the quick lane that must make room when others wait, the longest there first."""
        if not self._settings.slow:
            return []
        latest = now - self._settings.patience
        quick = [each for each in self._running.values() if not (each.slow or each.stopped)]
        return sorted((each for each in quick if each.use.began <= latest), key=lambda each: each.use.began)

    def _has_slow_place(self, client: int) -> bool:
        own = sum(each.slow and each.use.owner == client for each in self._running.values())
        return self._running_in(slow=True) < self._settings.slow and own < max(1, self._settings.slow // 2)

    def _running_in(self, *, slow: bool) -> int:
        return sum(each.slow == slow for each in self._running.values())


def _clients(build: Waiting, askers: Askers) -> AbstractSet[int]:
    return askers.get(build.entry.id) or {NOBODY}
