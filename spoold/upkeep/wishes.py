"""Wishes: whoever runs a submission is asked to end it, and to tell what it came to so far.

Spec: spool-layout.md, "Cancelling". An executor that lives answers by itself, as it answers whatever it holds. So a
wish is a second name of the entry and decides nothing. It is waited for until its time is over. Not thread-safe.
"""

from __future__ import annotations

from spoold.host import fsops
from spoold.host.clock import Clock
from spoold.host.log import Log
from spoold.model.ids import Entry
from spoold.spool.owned import OwnedQueue

log = Log("spool")
FORGOTTEN = 60.0  # seconds after its time a wish is forgotten that nobody came back to


class Wishes:
    """What the holders of entries in ``queue`` were asked to end; each has ``patience`` seconds for it."""

    def __init__(self, queue: OwnedQueue, clock: Clock, patience: float) -> None:
        self.patience = patience
        self._queue, self._clock = queue, clock
        self._until: dict[str, float] = {}  # by id, the oldest first, on the monotonic clock

    def wait(self, entry: Entry) -> bool:
        """Ask whoever holds an entry in ``running/`` to end it, once; tell whether that may still be waited for."""
        now = self._clock.monotonic()
        if entry.id not in self._until:
            if not self._ask(entry):
                return False
            self._forget_old(now)
            self._until[entry.id] = now + self.patience
            log.info("asked its executor to end it", submission=entry.id, attempt=entry.attempt)
        return now < self._until[entry.id]

    def _ask(self, entry: Entry) -> bool:
        try:
            return self._queue.ask_to_end(entry)
        except OSError as error:  # a full disk: then it is ended without what it came to, which makes room
            log.warning("an executor cannot be asked to end an entry", submission=entry.id, error=error)
            return False

    def _forget_old(self, now: float) -> None:
        for id_ in list(self._until):
            if self._until[id_] + FORGOTTEN > now:
                return
            del self._until[id_]

    def withdraw(self, id_: str) -> bool:
        """Take back what was asked of an id that is answered; tell whether anything was."""
        fsops.remove(self._queue.wish(Entry(id_, 1)))
        return self._until.pop(id_, None) is not None
