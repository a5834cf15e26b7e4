"""What is done about workers that stopped, and about what a crash left half done.

Spec: spool-layout.md, "The mtime rule" and "Crash points". ``Watchman`` decides which entries are dead: it remembers
what it saw, and on whose clock. ``publish_committed`` ends what was committed and not yet shown. ``abandon`` ends an
entry that has cost too many attempts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from spoold.host import fsops
from spoold.host.clock import Clock
from spoold.host.log import Log
from spoold.model import ids
from spoold.model.ids import Entry
from spoold.spool.queue import Queue


class Sighting(NamedTuple):
    """An mtime, and when it was first seen with that value on the monotonic clock."""

    mtime: float
    since: float


class Watchman:
    """Tells which entries of one state have run out of lease.

    An entry is dead when its mtime is older than ``limit`` on the file system's clock *and* has not changed for two
    renewals on ours, so that a stepped clock alone expires nothing; or when it has not changed for ``limit`` on ours,
    so that a time in the future holds nothing for ever.
    """

    def __init__(self, clock: Clock, *, limit: float, renewal: float) -> None:
        self._clock = clock
        self._limit = limit
        self._renewal = renewal
        self._seen: dict[str, Sighting] = {}

    def dead(self, queue: Queue, state: str) -> list[Entry]:
        """Look at all entries in ``state`` and return the dead ones."""
        now, here = self._clock.file_system(), self._clock.monotonic()
        seen: dict[str, Sighting] = {}
        found = []
        for entry in queue.entries(state):
            path = queue.entry_path(state, entry)
            mtime = fsops.mtime(path)
            if mtime is None:
                continue
            before = self._seen.get(path)
            seen[path] = before if before and before.mtime == mtime else Sighting(mtime, here)
            still = here - seen[path].since
            if still >= self._limit or (now - mtime > self._limit and still >= 2 * self._renewal):
                found.append(entry)
        self._seen = seen
        return found


def publish_committed(queue: Queue, log: Log) -> None:
    """Show the results of entries that were committed by a process that died before it could show them.

    Of several attempts' results it is the last one's: only the current attempt can commit, it wrote its result before
    that, and no attempt begins after it.
    """
    for id_, results in queue.results_waiting().items():
        if fsops.exists(queue.path("done", ids.done_name(id_))):
            if not fsops.exists(queue.path("done", ids.response_name(id_))):
                log.info("publishing the result of a process that died", submission=id_, attempt=results[-1].attempt)
                queue.publish(results[-1])
            stale = results
        else:
            place = queue.locate(id_)
            current = place[1].attempt if place else 0
            stale = [result for result in results if result.attempt < current]
        for result in stale:
            fsops.remove(queue.path("tmp", ids.result_name(result)))


def recover(
    queue: Queue, state: str, entry: Entry, *, clock: Clock, abandon: Callable[[Entry], None], log: Log
) -> None:
    """Deal with a dead entry: back to the start with the next attempt, or the end of it after the last one."""
    if entry.attempt == ids.CANCEL:
        return  # intake's, which ends it when it starts: with two at it, one could show what the other half wrote
    if entry.attempt < queue.attempts:
        if queue.retry(entry, state, clock.file_system()):
            log.warning("lease ran out; put back", submission=entry.id, state=state, attempt=entry.attempt + 1)
        return
    # An attempt above the last is one that was fenced before, by a checker that died before it was through.
    mine = entry if entry.attempt > queue.attempts else queue.fence(entry, state)
    if mine:
        log.error("set aside: its workers died", submission=entry.id, state=state, attempts=queue.attempts)
        abandon(mine)
