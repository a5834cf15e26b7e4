"""Recovery from workers that stopped, and from the half-done work that a crash leaves.

Spec: spool-layout.md, "The mtime rule" and "Crash points". ``Watchman`` decides which entries are dead. It remembers
the mtimes that it saw, and on whose clock. ``mend`` drops second names and shows committed results. ``recover`` puts a
dead entry back, or ends an entry that has cost too many attempts.
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

ABANDONED = 3600.0  # seconds after which nobody comes back to a private file, or to a file that belongs to nothing


class Sighting(NamedTuple):
    """An mtime, and when it was first seen with that value, on the monotonic clock."""

    mtime: float
    since: float


class Watchman:
    """Tells for which entries of one state the lease has run out.

    Those are dead by the mtime rule, see :func:`has_run_out`.
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
    """End the work that a kill or a loss of power left half done. A daemon calls this before it takes any entry.

    With ``states``, second names of entries in other states stay. The process that finds them drops them
    (:func:`drop_double`).
    """
    for state in states or queue.kind.on_its_way:
        for entry in queue.entries(state):
            drop_double(queue, state, entry, log)
    publish_committed(queue, log)


def drop_double(queue: Queue, state: State, entry: Entry, log: Log) -> None:
    """Leave an entry in ``state`` one name, if a loss of power kept both the old and the new name of a rename.

    The commit wins, then the highest attempt, then the later state. Both names are one file. So a worker on the name
    that stays is not disturbed. If the entry moves on meanwhile, the other name is gone already.
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
        # An entry with a name in tmp/ as well may have been claimed and given back while we looked.
        if [attributes.shared_inode(each) for each in (path, stays)] != [inode, inode]:
            continue
        log.warning("an entry had two names, as after a loss of power; removed one", path=path, stays=stays)
        fsops.remove(path)


def _order(queue: Queue, state: State) -> int:
    return queue.kind.on_its_way.index(state)


def publish_committed(queue: Queue, log: Log) -> list[str]:
    """Show the results of entries that a process committed and did not show. Return their ids.

    That process died before it could, or it only commits. A process that only commits shows nothing here either.

    If there are results of several attempts, the last one is shown: only the current attempt can commit, it wrote its
    result before that, and no attempt begins after it. So results are listed once more after the commits were seen,
    since the first list may have only an earlier attempt's result. A private name is removed when the public one is
    durable. The holder may have shown it a moment ago, and may be about to sync many at once.
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
    latest = [found[id_] for id_ in committed if id_ in found]  # the holders have shown the others meanwhile
    for results in latest:
        log.info("publishing the result of another worker", **{queue.kind: results[-1].id}, attempt=results[-1].attempt)
    shown = queue.results.publish(*(results[-1] for results in latest)) if latest else []
    for outdated in (result for results in latest for result in results[:-1]):
        queue.results.drop(outdated)
    return [entry.id for entry in shown]


def _outdated(queue: Queue, results: list[Entry]) -> list[Entry]:
    """Return the results that nobody can commit any more. Attempt 0 is a refusal, which has no entry before it.

    A result is written after its attempt has begun. The entry is looked for after the result was seen. So if the
    result's attempt is later than the entry's, a loss of power took that attempt back.
    """
    found = []
    for result in results:  # a result that an earlier use of the id left may be another owner's
        place = queue.locate(result.id, result)
        if place is None:
            found += [result] if result.attempt > 0 else []
        elif place[0] is not State.DONE:  # otherwise it was committed after the look above: the next look shows it
            found += [result] if result.attempt != place[1].attempt else []
    return found


def clear_private(queue: Queue, clock: Clock) -> None:
    """Remove the private files of a process, or of a trial, that died before it showed them.

    Results are not among them, see ``publish_committed``.
    """
    old = clock.file_system() - ABANDONED
    for name in fsops.names(queue.path("tmp")):
        path, result = queue.path("tmp", name), ids.result_beside(name)
        if result and fsops.exists(queue.path("tmp", result)):
            continue  # it is removed with that result
        if (ids.is_private(name) or ids.is_trial(name)) and (fsops.mtime(path) or old) < old:
            fsops.remove(path)


def recover(queue: Queue, state: State, entry: Entry, *, abandon: Callable[[Entry], None], log: Log) -> None:
    """Put a dead entry back to the start for its next attempt, or end it after its last one."""
    if entry.attempt == ids.CANCEL:
        return  # intake ends it when it starts. If two did, one could show what the other has half written
    if entry.attempt < queue.attempts:
        if queue.retry(entry, state):
            PUT_BACK.add(queue.kind.directory(state))
            attempt = entry.attempt + 1
            log.warning("put back: its lease ran out", **{queue.kind: entry.id}, state=state, attempt=attempt)
        return
    mine = queue.fence(entry, state)  # also from a worker that took it to end it: that one may only have stalled
    if mine:
        log.error("set aside: all attempts died", **{queue.kind: entry.id}, state=state, attempts=queue.attempts)
        abandon(mine)
