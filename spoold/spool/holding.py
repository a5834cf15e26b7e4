"""Holding: a worker claims an entry, works on it while its lease is renewed, and gives it back if the host fails.

Spec: spool-layout.md, "Transitions" and "The mtime rule". Every worker does it in this one way.

It is nobody's error to come too late. An error of the host (a full disk, a file server that is away) costs the entry no
attempt. The entry goes back as soon as the host lets us give it back. Until then the worker holds it, since no other
worker could do more with it. A slot waits for that. A worker with other things to do keeps the entry, and tries again
later.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable

from spoold.host.log import Log
from spoold.model.errors import LeaseLostError
from spoold.model.ids import Entry
from spoold.model.states import State
from spoold.spool.lease import Heartbeat, Lease
from spoold.spool.queue import Queue

BACK_OFF = 5.0  # seconds between two tries to give an entry back


class Holder:
    """A worker of one queue. Once ``stopping`` is set, it waits for the host no longer.

    Without ``stopping`` it never waits. Then it keeps each entry that it cannot give back, until ``give_back_kept``
    can. Only one thread may use such a holder.
    """

    def __init__(self, queue: Queue, heartbeat: Heartbeat, stopping: threading.Event | None, log: Log) -> None:
        self._queue, self._heartbeat, self._stopping, self._log = queue, heartbeat, stopping, log
        self._leases: set[Lease] = set()
        self._kept: deque[tuple[Callable[[], object], contextlib.ExitStack]] = deque()

    @property
    def held(self) -> int:
        """Return how many entries the worker holds."""
        return len(self._leases)

    @property
    def keeps(self) -> bool:
        """Tell whether the worker keeps entries that it could not give back."""
        return bool(self._kept)

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
        """Claim ``entry`` and do ``work``. Return False where the host failed.

        ``left`` is called once the entry is no longer in ``source``, as far as we know, and before it can come back
        there.
        """
        try:
            path = self._queue.claim(entry, source, target)
        except LeaseLostError:
            self._too_late(entry)
            return True
        except OSError as error:  # any worker may have it by now. If it is ours, its lease runs out
            self._say("an entry could not be claimed", entry, error)
            return False
        finally:
            left()
        try:
            return self._work(entry, path, work, give_back)
        except LeaseLostError:
            self._too_late(entry)
            return True
        except OSError as error:  # the look at the claimed entry failed
            with contextlib.ExitStack() as nothing:
                self._return(entry, error, give_back, nothing)
            return False

    def _work(self, entry: Entry, path: str, work: Callable[[Lease], None], give_back: Callable[[], object]) -> bool:
        with contextlib.ExitStack() as held:
            lease = held.enter_context(self._heartbeat.holding(path, self._queue.wish(entry)))
            self._leases.add(lease)
            held.callback(self._leases.discard, lease)
            try:
                work(lease)
            except OSError as error:
                self._return(entry, error, give_back, held)
                return False
        return True

    def _return(
        self, entry: Entry, error: OSError, give_back: Callable[[], object], held: contextlib.ExitStack
    ) -> None:
        """Give an entry back, or keep it, together with what is ``held`` for it."""
        self._say("work on an entry failed by an error of the host; giving it back", entry, error)
        while True:
            try:
                give_back()
            except OSError:
                if self._stopping is None:
                    self._kept.append((give_back, held.pop_all()))
                    return
                if self._stopping.wait(BACK_OFF):
                    return
            else:
                return

    def give_back_kept(self) -> None:
        """Give back the entries that are kept, until the host fails."""
        with contextlib.suppress(OSError):
            while self._kept:
                give_back, held = self._kept[0]
                give_back()
                self._kept.popleft()
                held.close()

    def close(self) -> None:
        """Try once more to give back the kept entries, and let go of the rest: their leases run out by themselves."""
        self.give_back_kept()
        while self._kept:
            self._kept.popleft()[1].close()

    def _too_late(self, entry: Entry) -> None:
        self._log.debug("another worker has it", **{self._queue.kind: entry.id}, attempt=entry.attempt)

    def _say(self, what: str, entry: Entry, error: OSError) -> None:
        self._log.error(what, **{self._queue.kind: entry.id}, attempt=entry.attempt, error=error)
