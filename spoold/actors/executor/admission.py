"""Admission: jobs that run at once never ask for more memory together than there is for them.

Spec: spool-layout.md, "Overload". A job that has a slot begins once the most that its container may take is free. Where
it is not, owners take turns, so that many small jobs of one do not keep a big one of another waiting for ever:

* Of each owner the job that came first is next. Owners that wait are asked in turns, the one served last comes
  last.
* A job that fits begins. One that does not is passed over, unless its owner has nothing running: then nobody behind it
  begins before it does, for ``HOLD`` seconds at a time, and as long again they may. So a big job is let in once the
  others' end, and one that waits for jobs that take for ever leaves others half of the time.

Thread-safe.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec.structs import replace

from spoold.config import Settings
from spoold.host import machine
from spoold.host.log import Log
from spoold.model.limits import for_jobs, within
from spoold.model.states import Role
from spoold.sandbox import RunCancelledError

log = Log(Role.EXECUTOR)
ATTENTION = 0.2  # seconds between looks at the caller's event
HOLD = 30.0  # seconds; longer than a job takes by default


def fitted(settings: Settings) -> Settings:
    """Return ``settings`` with what memory there is for jobs on this host, and no limit above that."""
    memory = settings.executor.memory or for_jobs(machine.memory())
    executor = replace(settings.executor, memory=memory)
    return replace(settings, executor=executor, limits=within(settings.limits, memory))


@dataclass(eq=False)
class _Wait:
    size: int
    let_in: bool = False
    since: float = field(default_factory=time.monotonic)

    @property
    def holds(self) -> bool:
        """Tell whether those who came later are held back for it now."""
        return (time.monotonic() - self.since) % (2 * HOLD) < HOLD


class Admission:
    """So many bytes of memory for all jobs of this executor together."""

    def __init__(self, memory: int) -> None:
        self._free = self._memory = memory
        self._changed = threading.Condition()
        self._waiting: dict[int, deque[_Wait]] = {}  # by owner; who is asked first stands first
        self._running: Counter[int] = Counter()
        self._closed = False

    @property
    def waiting(self) -> int:
        """Return how many jobs wait for memory."""
        with self._changed:
            return sum(map(len, self._waiting.values()))

    @contextlib.contextmanager
    def holding(self, owner: int, size: int, stop: threading.Event) -> Iterator[None]:
        """Wait until ``size`` bytes are free, and hold them; one that asks for more than there is runs alone.

        Raises :class:`RunCancelledError` when ``stop`` is set, or all is closed, before it was let in.
        """
        size = min(size, self._memory)
        with self._changed:
            self._wait(owner, _Wait(size), stop)
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._running -= Counter((owner,))
                self._let_in()

    def close(self) -> None:
        """Let in nobody any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wait(self, owner: int, wait: _Wait, stop: threading.Event) -> None:
        self._waiting.setdefault(owner, deque()).append(wait)
        self._let_in()
        if not wait.let_in:
            log.info("a job waits for memory", owner=owner, bytes=wait.size, free=self._free)
        while not wait.let_in:
            if self._closed or stop.is_set():
                self._forget(owner, wait)
                self._let_in()
                raise RunCancelledError("there was no memory for it yet")
            self._changed.wait(ATTENTION)
            self._let_in()

    def _let_in(self) -> None:
        """Let in whoever fits and is next."""
        while found := self._next():
            owner, wait = found
            self._forget(owner, wait)
            if others := self._waiting.pop(owner, None):
                self._waiting[owner] = others  # behind all other owners
            self._free -= wait.size
            self._running[owner] += 1
            wait.let_in = True
            self._changed.notify_all()

    def _next(self) -> tuple[int, _Wait] | None:
        for owner, waits in () if self._closed else self._waiting.items():
            if waits[0].size <= self._free:
                return owner, waits[0]
            if not self._running[owner] and waits[0].holds:
                return None
        return None

    def _forget(self, owner: int, wait: _Wait) -> None:
        self._waiting[owner].remove(wait)
        if not self._waiting[owner]:
            del self._waiting[owner]
