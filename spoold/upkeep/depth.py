"""How many entries are in each state, and how old the oldest is: health measures it and ``spoolctl top`` shows it.

A look lists the directories and reads one time of each entry. It keeps only the oldest entries. With 100,000 entries it
takes a few tenths of a second of CPU time. So no look happens on the way of a submission, and programs that look often
rest in between.
"""

from __future__ import annotations

import contextlib
import heapq
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from spoold.host import fsops
from spoold.host.clock import Clock
from spoold.host.metrics import ENTRIES, LOOK, OLDEST, STATES
from spoold.model.ids import Kept

REST = 20.0  # after a look to measure, the next one waits this many times as long


class Waiting(NamedTuple):
    """An entry, by the name of its file, and since when it is in its state, on the file system's clock."""

    since: float
    name: str


class Depth(NamedTuple):
    """A state (its directory in the spool), the number of its entries, and the oldest ones, the oldest first."""

    state: str
    number: int
    oldest: list[Waiting]


class Holder(NamedTuple):
    """A worker by name (``executor-default``, ``builder``), and the entries that it holds."""

    name: str
    held: list[Waiting]


def depths(root: str, most: int = 1, states: Iterable[str] = STATES) -> Iterator[Depth]:
    """Look at ``states`` of the spool ``root``, as far as they are open to this user.

    Yield each with the ``most`` oldest of its entries.
    """
    claims = {each.name: each.since for worker in holders(root) for each in worker.held}
    for state in states:
        with contextlib.suppress(PermissionError):
            yield _depth(root, state, most, claims)


class Measure:
    """Measures the depth of ``states``. However many entries there are, it takes only a small part of the time."""

    def __init__(self, root: str, clock: Clock, states: Iterable[str]) -> None:
        self._root, self._clock, self._states = root, clock, tuple(states)
        self._rests_until = 0.0  # on the monotonic clock
        self.found: list[Depth] = []  # by the last look, at ``at`` on the file system's clock
        self.at = 0.0

    def __call__(self) -> None:
        """Measure, unless the last look was a moment ago."""
        began = self._clock.monotonic()
        if began < self._rests_until:
            return
        self.at = now = self._clock.file_system()
        self.found = list(depths(self._root, states=self._states))
        for depth in self.found:
            ENTRIES.set(depth.number, depth.state)
            OLDEST.set(max(0.0, now - depth.oldest[0].since) if depth.oldest else 0.0, depth.state)
        took = self._clock.monotonic() - began
        LOOK.set(took)
        self._rests_until = began + (1 + REST) * took


def _depth(root: str, state: str, most: int, claims: dict[str, float]) -> Depth:
    number = 0
    oldest: list[Waiting] = []
    for waiting in _waiting(os.path.join(root, state), dropped=state == "incoming", claims=claims):
        number += 1
        newest_first = Waiting(-waiting.since, waiting.name)
        if len(oldest) < most:
            heapq.heappush(oldest, newest_first)
        elif newest_first > oldest[0]:
            heapq.heapreplace(oldest, newest_first)
    return Depth(state, number, sorted(Waiting(-since, name) for since, name in oldest))


def _waiting(directory: str, *, dropped: bool, claims: dict[str, float]) -> Iterator[Waiting]:
    """Yield the entries in a directory.

    The mtime of an entry is when it came there. While it is held, its mtime is renewed, so the time of its holder's
    note counts. A client can set the mtime of its own file, so there the ctime counts.
    """
    with os.scandir(directory) as found:
        for each in found:
            if not each.name.endswith(".json") or each.name.startswith("."):
                continue
            try:
                status = each.stat(follow_symlinks=False)
            except OSError:
                continue  # it moved on, or a user has mounted something over it
            yield Waiting(status.st_ctime if dropped else claims.get(each.name, status.st_mtime), each.name)


def holders(root: str) -> list[Holder]:
    """Return the workers that have noted anything on this spool, with the entries that each holds now, oldest first."""
    found = []
    for private in (os.path.join(root, "tmp"), os.path.join(root, "builds", "tmp")):
        for name in _names(private):
            if name.endswith(Kept.HELD):
                notes = os.path.join(private, name)
                since = {note: fsops.mtime(os.path.join(notes, note)) for note in _names(notes)}
                held = [Waiting(mtime, note) for note, mtime in since.items() if mtime is not None]
                found.append(Holder(name.removesuffix(Kept.HELD), sorted(held)))
    return sorted(found)


def _names(directory: str) -> list[str]:
    """Return the names in a directory, none where it is closed to this user."""
    try:
        return fsops.names(directory)
    except PermissionError:
        return []
