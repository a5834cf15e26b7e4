"""What is done about workers that stopped, and about what a crash left half done.

Spec: spool-layout.md, "The mtime rule" and "Crash points". ``Watchman`` decides which entries are dead: it remembers
what it saw, and on whose clock. ``mend`` drops second names and shows what was committed. ``recover`` puts a dead entry
back, or ends one that has cost too many attempts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from spoold.config import LeaseSettings
from spoold.host import attributes, fsops
from spoold.host.clock import Clock
from spoold.host.log import Log
from spoold.host.metrics import PUT_BACK
from spoold.model import ids
from spoold.model.ids import Entry
from spoold.model.states import State
from spoold.spool.lease import has_run_out
from spoold.spool.queue import Queue

ABANDONED = 3600.0  # seconds after which nobody comes back to what is private, or to what belongs to nothing


class Sighting(NamedTuple):
    """An mtime, and when it was first seen with that value on the monotonic clock."""

    mtime: float
    since: float


class Watchman:
    """Tells which entries of one state have run out of lease.

    They are dead by the mtime rule, see :func:`has_run_out`.
    """

    def __init__(self, clock: Clock, lease: LeaseSettings) -> None:
        self._clock = clock
        self._lease = lease
        self._seen: dict[str, Sighting] = {}

    def dead(self, queue: Queue, state: State) -> list[Entry]:
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
            if has_run_out(now - mtime, here - seen[path].since, self._lease):
                found.append(entry)
        self._seen = seen
        return found


def mend(queue: Queue, log: Log, states: Iterable[State] = ()) -> None:
    """End what a kill or a loss of power left half done: whoever starts calls this before it takes anything.

    With ``states`` second names of what is in others stay, for whoever finds them to see to (:func:`drop_double`).
    """
    for state in states or queue.kind.on_its_way:
        for entry in queue.entries(state):
            drop_double(queue, state, entry, log)
    publish_committed(queue, log)


def drop_double(queue: Queue, state: State, entry: Entry, log: Log) -> None:
    """Leave an entry in ``state`` one name, where a loss of power kept the old name of a rename beside the new one.

    The commit wins, then the highest attempt, then the later state. Both names are one file, so whoever works on the
    one that stays is not disturbed; and where the entry moves on meanwhile, the name that goes is gone already.
    """
    inode = attributes.shared_inode(queue.entry_path(state, entry))
    if inode is None:
        return
    found = {(False, entry.attempt, _order(queue, state), queue.entry_path(state, entry))}
    for other, under in queue.places(entry._replace(attempt=1)):
        path = queue.entry_path(other, under)
        if attributes.shared_inode(path) == inode:
            found.add((False, under.attempt, _order(queue, other), path))
    done = queue.path(State.DONE, ids.done_name(entry.id))
    if attributes.shared_inode(done) == inode:
        found.add((True, 0, 0, done))
    *old, (*_, stays) = sorted(found)
    for *_, path in old:
        # One that has a name in tmp/ as well may have been claimed and given back while we looked.
        if [attributes.shared_inode(each) for each in (path, stays)] != [inode, inode]:
            continue
        log.warning("a second name of one entry, as a loss of power leaves it; removed", path=path, stays=stays)
        fsops.remove(path)


def _order(queue: Queue, state: State) -> int:
    return queue.kind.on_its_way.index(state)


def publish_committed(queue: Queue, log: Log) -> list[str]:
    """Show the results of entries that were committed by a process that did not show them; return their ids.

    It died before it could, or only commits: one like that shows none here either.

    Of several attempts' results it is the last one's: only the current attempt can commit, it wrote its result before
    that, and no attempt begins after it. So results are listed once more when the commits have been seen: what was
    listed before may be an earlier attempt's alone. A private name goes when the public one is durable: its holder may
    have shown it a moment ago, and be about to sync many at once.
    """
    if queue.results.commits_only:
        return []
    stale, is_durable, committed = [], True, []
    for id_, results in queue.results.waiting().items():
        if not fsops.exists(queue.path(State.DONE, ids.done_name(id_))):
            stale += _outdated(queue, results)
            continue
        if fsops.exists(queue.path(State.DONE, ids.response_name(id_))):
            queue.release_id(id_)
            stale += results
            is_durable = False
        else:
            committed.append(id_)
    shown = _publish_latest(queue, committed, log)
    if not is_durable:
        fsops.sync_directory(queue.path(State.DONE))
    for result in stale:
        queue.results.drop(result)
    return shown


def _publish_latest(queue: Queue, committed: list[str], log: Log) -> list[str]:
    found = queue.results.waiting() if committed else {}
    latest = [found[id_] for id_ in committed if id_ in found]  # of the others the holder has shown it meanwhile
    for results in latest:
        log.info("publishing what another committed", **{queue.kind: results[-1].id}, attempt=results[-1].attempt)
    shown = queue.results.publish(*(results[-1] for results in latest)) if latest else []
    for outdated in (result for results in latest for result in results[:-1]):
        queue.results.drop(outdated)
    return [entry.id for entry in shown]


def _outdated(queue: Queue, results: list[Entry]) -> list[Entry]:
    """Return the results that nobody can commit any more. Attempt 0 is a refusal's, which has no entry before it.

    A result is written once its attempt has begun. So one of a later attempt than the entry has, which is looked for
    after the result was seen, is left of a loss of power that took the attempt back.
    """
    found = []
    for result in results:  # one that an earlier use of the id left may be another owner's
        place = queue.locate(result.id, result)
        if place is None:
            found += [result] if result.attempt > 0 else []
        elif place[0] is not State.DONE:  # else committed since it was looked for there: the next look shows it
            found += [result] if result.attempt != place[1].attempt else []
    return found


def clear_private(queue: Queue, clock: Clock) -> None:
    """Remove what a process wrote in private and did not live to show, or tried. Results: see ``publish_committed``."""
    old = clock.file_system() - ABANDONED
    for name in fsops.names(queue.path("tmp")):
        path, result = queue.path("tmp", name), ids.result_beside(name)
        if result and fsops.exists(queue.path("tmp", result)):
            continue  # it goes with that
        if (ids.is_private(name) or ids.is_trial(name)) and (fsops.mtime(path) or old) < old:
            fsops.remove(path)


def recover(queue: Queue, state: State, entry: Entry, *, abandon: Callable[[Entry], None], log: Log) -> None:
    """Deal with a dead entry: back to the start with the next attempt, or the end of it after the last one."""
    if entry.attempt == ids.CANCEL:
        return  # intake's, which ends it when it starts: with two at it, one could show what the other half wrote
    if entry.attempt < queue.attempts:
        if queue.retry(entry, state):
            PUT_BACK.add(queue.kind.directory(state))
            attempt = entry.attempt + 1
            log.warning("lease ran out; put back", **{queue.kind: entry.id}, state=state, attempt=attempt)
        return
    mine = queue.fence(entry, state)  # also from one that took it to end it, and may only have stalled
    if mine:
        log.error("set aside: its workers died", **{queue.kind: entry.id}, state=state, attempts=queue.attempts)
        abandon(mine)
