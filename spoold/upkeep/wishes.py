"""Wishes: ask the holder of a submission to end it, and to tell how far it came.

Spec: spool-layout.md, "Cancelling". An executor that is alive answers the submission itself, like any that it holds. So
a wish is only a second name of the entry, and decides nothing. The asker waits until the wish's time is over. Not
thread-safe.
"""

from __future__ import annotations

from spoold.host import fsops
from spoold.host.clock import Clock
from spoold.host.log import Log
from spoold.model.ids import Entry
from spoold.spool.owned import OwnedQueue

log = Log("spool")
FORGOTTEN = 60.0  # seconds after its time until a wish that nobody came back to is forgotten


class Wishes:
    """The wishes to holders of entries in ``queue``. A holder has ``patience`` seconds for each."""

    def __init__(self, queue: OwnedQueue, clock: Clock, patience: float) -> None:
        self.patience = patience
        self._queue, self._clock = queue, clock
        self._until: dict[str, float] = {}  # by id, the oldest first, on the monotonic clock

    def wait(self, entry: Entry) -> bool:
        """Ask the holder of an entry in ``running/`` to end it, once. Return whether it may still be waited for."""
        now = self._clock.monotonic()
        if entry.id not in self._until:
            if not self._ask(entry):
                return False
            self._forget_old(now)
            self._until[entry.id] = now + self.patience
            log.info("asked the executor to end a submission", submission=entry.id, attempt=entry.attempt)
        return now < self._until[entry.id]

    def _ask(self, entry: Entry) -> bool:
        try:
            return self._queue.ask_to_end(entry)
        except OSError as error:  # a full disk: it is then ended without its holder's result, which makes room
            log.warning("the executor could not be asked to end a submission", submission=entry.id, error=error)
            return False

    def _forget_old(self, now: float) -> None:
        for id_ in list(self._until):
            if self._until[id_] + FORGOTTEN > now:
                return
            del self._until[id_]

    def withdraw(self, id_: str) -> bool:
        """Take back the wish for an id that is answered. Return whether there was one."""
        fsops.remove(self._queue.wish(Entry(id_, 1)))
        return self._until.pop(id_, None) is not None
