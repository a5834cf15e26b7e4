"""Holding: an entry is claimed, worked on while its lease is renewed, and given back where the host is in the way.

Spec: spool-layout.md, "Transitions" and "The mtime rule". Every worker that takes long does it in this one
way. What an executor answers at once it claims and ends in one go, see ``executor/answering``.

To come too late is nobody's error. An error of the host (a full disk, a file server that is away) costs the entry no
attempt: it goes back as soon as the host lets us, and is held until then, since nobody else could do more with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from spoold.host.log import Log
from spoold.model.errors import LeaseLostError
from spoold.model.ids import Entry
from spoold.model.states import State
from spoold.spool.lease import Heartbeat, Lease
from spoold.spool.queue import Queue

BACK_OFF = 5.0  # seconds between two tries to give an entry back


class Holder:
    """A worker of one queue; once ``stopping`` is set it does not wait for the host any more."""

    def __init__(self, queue: Queue, heartbeat: Heartbeat, stopping: threading.Event, log: Log) -> None:
        self._queue = queue
        self._heartbeat = heartbeat
        self._stopping = stopping
        self._log = log

    def hold(
        self,
        entry: Entry,
        source: State,
        target: State,
        work: Callable[[Lease], None],
        *,
        give_back: Callable[[], object],
        left: Callable[[], None] = lambda: None,
    ) -> bool:
        """Claim ``entry`` and do ``work``; False where the host was in the way.

        ``left`` is called once it is not in ``source`` any more, as far as we know: before it can come back there.
        """
        try:
            path = self._queue.claim(entry, source, target)
        except LeaseLostError:
            self._too_late(entry)
            return True
        except OSError as error:  # it may be anybody's by now; were it ours, its lease would run out
            self._say("an entry could not be claimed", entry, error)
            return False
        finally:
            left()
        try:
            return self._work(entry, path, work, give_back)
        except LeaseLostError:
            self._too_late(entry)
            return True
        except OSError as error:  # of the note that it is held
            self._return(entry, error, give_back)
            return False

    def _work(self, entry: Entry, path: str, work: Callable[[Lease], None], give_back: Callable[[], object]) -> bool:
        with self._heartbeat.holding(path) as lease:
            try:
                work(lease)
            except OSError as error:
                self._return(entry, error, give_back)
                return False
        return True

    def _return(self, entry: Entry, error: OSError, give_back: Callable[[], object]) -> None:
        self._say("the host is in the way", entry, error)
        while True:
            try:
                give_back()
            except OSError:
                if self._stopping.wait(BACK_OFF):
                    return
            else:
                return

    def _too_late(self, entry: Entry) -> None:
        self._log.debug("another worker has it", **{self._queue.kind: entry.id}, attempt=entry.attempt)

    def _say(self, what: str, entry: Entry, error: OSError) -> None:
        self._log.error(what, **{self._queue.kind: entry.id}, attempt=entry.attempt, error=error)
