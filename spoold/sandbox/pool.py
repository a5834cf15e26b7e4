"""Containers that wait for a job, so that no job waits for a container.

Theory of operation. Making a container takes 100 to 300 ms of CPU time, most of it in the engine, and removing it about
half of that. A job that is sent to a waiting container is done in a few milliseconds. So ``wanted`` containers are kept
ready. ``take`` hands one out, and ``give`` takes it back. A used container is not handed out again, unless containers
are recycled and it says that it can be. A few threads make and remove containers:

* Callers that wait in ``take`` come first: containers are made for them at once.
* Refilling and removing take CPU time from running jobs. So they wait for a quiet moment, in which no job has run for
  ``QUIET``, but no longer than ``YIELD``. Half of the threads do such work at once, at most. So this work goes on under
  continuous load too, and throughput is then that of the engine's making and removing.
* ``reserve`` more are kept for bursts, such as the hour before a deadline. While the CPUs are idle, these are made and
  used ones are removed. So a burst has the CPUs to itself, and so have builds. A container that holds much memory is
  removed without waiting for that.
* ``backlog`` bounds the used containers that are not yet removed. Beyond it ``give`` removes them, and its caller
  waits.

A waiting container may die: the engine restarts, the kernel needs memory, somebody prunes. ``take`` sees that at once
by its stream, and the threads see it within ``SWEEP``. The container is replaced. Where none can be made, waiting
callers are told why, and the next try comes after a pause that doubles. ``wake`` ends the pause. A container that
cannot be removed is left to the check that finds the engine back. ``take`` waits for ``TAKE_TIMEOUT`` at most, the
threads as long as the engine's time-outs.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic

from spoold.host.log import Log
from spoold.host.machine import Load
from spoold.host.metrics import SANDBOX_EVENTS, SANDBOX_REQUESTS, SANDBOXES
from spoold.model.errors import OperatorError, SpooldError, TemporaryError
from spoold.sandbox import RunCancelledError
from spoold.sandbox.runner import Carrier, Runner
from spoold.sandbox.schedule import YIELD, Rules, Schedule, Situation

log = Log("sandbox")

TAKE_TIMEOUT = 120.0  # seconds that a job waits for a container
ATTENTION = 0.2  # seconds between looks at the caller's event
SWEEP = 2.0  # seconds between looks at the containers that wait
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds after a container could not be made
CLOSE_TIMEOUT = 90.0  # seconds for the threads to finish when the pool is closed


@dataclass
class Counts:
    """Counts of what has happened so far."""

    made: int = 0
    met: int = 0  # a job found a container waiting
    unmet: int = 0  # a job had to wait for one
    died: int = 0  # while they waited
    removed: int = 0
    reused: int = 0  # given back for another job


class Pool(Generic[Carrier]):
    """A pool of containers. Thread-safe. ``make`` makes one or raises, sooner once the event it gets is set."""

    def __init__(
        self,
        make: Callable[[threading.Event], Runner[Carrier]],
        *,
        wanted: int,
        threads: int,
        backlog: int,
        reserve: int = 0,
        recycled: bool = False,
    ) -> None:
        self._make = make
        rules = Rules(wanted=wanted, reserve=reserve, backlog=backlog + reserve, threads=threads, recycled=recycled)
        self._schedule = Schedule(rules, Load().idle)
        self._change, self._closing = threading.Condition(), threading.Event()
        self._waiting: deque[Runner[Carrier]] = deque()
        self._used: deque[tuple[float, Runner[Carrier]]] = deque()
        began = time.monotonic() - YIELD  # the first filling lets no jobs go first
        self._state = Situation(last_job=began, missing_since=began)
        self._pause = FIRST_PAUSE
        self._failures, self._failure = 0, Exception()
        self._renewals = 0
        self.counts = Counts()
        self._threads = [threading.Thread(target=self._serve, name=f"pool-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def take(self, cancelled: threading.Event, owner: int = -1, closure: Sequence[str] = ()) -> Runner[Carrier]:
        """Return a waiting container that may serve jobs of ``owner``; the caller gives it back.

        A container whose last job saw the same ``closure`` of the store is preferred, since it has no other view to
        make.
        """
        deadline = time.monotonic() + TAKE_TIMEOUT
        with self._change:
            self._drop_dead(first_only=not self._schedule.rules.recycled)
            seen = self._failures
            if found := self._fit(owner, closure):
                self.counts.met += 1
                SANDBOX_REQUESTS.add("yes")
                return self._hand_out(found)
            self.counts.unmet += 1
            SANDBOX_REQUESTS.add("no")
            self._state.takers += 1
            self._change.notify_all()
            try:
                while not (found := self._fit(owner, closure)):
                    self._check(cancelled, seen, deadline)
                    self._change.wait(ATTENTION)
                return self._hand_out(found)
            finally:
                self._state.takers -= 1

    def _check(self, cancelled: threading.Event, seen: int, deadline: float) -> None:
        if cancelled.is_set():
            raise RunCancelledError("cancelled")
        if self._closing.is_set():
            raise TemporaryError("the sandbox is being closed")
        if self._failures > seen:
            kind = OperatorError if isinstance(self._failure, OperatorError) else TemporaryError
            raise kind(str(self._failure)) from self._failure
        if time.monotonic() > deadline:
            raise TemporaryError(
                f"no container was ready within {TAKE_TIMEOUT:.0f} s: the machine or its engine is overloaded"
            )

    def _fit(self, owner: int, closure: Sequence[str]) -> Runner[Carrier] | None:
        """Return a waiting container for ``owner``. Where all serve other users, drop one, so that one is made."""
        fit = [container for container in self._waiting if container.serves(owner)]
        if fit:
            return min(fit, key=lambda each: (each.closure != closure, each.due))  # of equal ones, a ready one
        if self._waiting:
            self._discard([self._waiting[0]])
            self._change.notify_all()
        return None

    def _hand_out(self, container: Runner[Carrier]) -> Runner[Carrier]:
        if self._schedule.missing(self._situation()) <= 0:
            self._state.missing_since = time.monotonic()
        self._state.running += 1
        self._waiting.remove(container)
        return container

    def give(self, container: Runner[Carrier], *, again: bool = False) -> None:
        """Take back a container that ``take`` returned. It will be removed, or serve ``again``."""
        with self._change:
            self._state.running -= 1
            now = self._state.last_job = time.monotonic()
            if again and self._schedule.missing(self._situation()) > 0 and not self._closing.is_set():
                self.counts.reused += 1
                SANDBOX_EVENTS.add("reused")
                self._waiting.append(container)
                if self._state.takers:  # only the takers have something to do
                    self._change.notify_all()
                return
            later = len(self._used) < self._schedule.rules.backlog and not self._closing.is_set()
            if later and container.light:
                self._used.append((now, container))
            elif later:
                self._used.appendleft((now, container))
            self._change.notify_all()
        if not later:
            self._remove(container)

    def measure(self) -> None:
        """Update the metrics of how many containers there are."""
        SANDBOXES.set(len(self._waiting), "waiting")
        SANDBOXES.set(self._state.running, "busy")
        SANDBOXES.set(len(self._used), "used")

    def wake(self) -> None:
        """Try again at once, since the engine is back."""
        with self._change:
            self._pause, self._state.not_before = FIRST_PAUSE, 0.0
            self._change.notify_all()

    def renew(self) -> None:
        """Replace all waiting containers, since containers are made in another way now."""
        with self._change:
            self._renewals += 1
            self._discard(list(self._waiting))
            self._change.notify_all()

    def rest(self) -> None:
        """Keep no containers ready any more; make one only when a caller takes it."""
        with self._change:
            self._schedule.rules = replace(self._schedule.rules, wanted=0, reserve=0)
        self.renew()

    def close(self) -> None:
        """Remove waiting and used containers. A container that a job still holds is removed when it is given back."""
        self._closing.set()
        with self._change:
            self._discard(list(self._waiting))
            self._change.notify_all()
        deadline = time.monotonic() + CLOSE_TIMEOUT
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _serve(self) -> None:
        while task := self._next():
            task()

    def _next(self) -> Callable[[], None] | None:
        """Wait for something to do, and return it; None at the end."""
        with self._change:
            while True:
                if self._closing.is_set() and not self._used:
                    return None
                self._drop_dead()
                now = time.monotonic()
                seen = self._situation()
                making, removing = self._schedule.making_due(seen, now), self._schedule.removing_due(seen, now)
                if removing <= now and (making > now or self._schedule.is_crowded(seen)):
                    self._state.removing += 1
                    return partial(self._remove_one, self._used.popleft()[1])
                if making <= now:
                    self._state.making += 1
                    return self._make_one
                self._change.wait(min(making - now, removing - now, SWEEP))

    def _situation(self) -> Situation:
        """Return what there is now."""
        state = self._state
        state.waiting, state.used, state.closing = len(self._waiting), len(self._used), self._closing.is_set()
        if self._used:
            since, container = self._used[0]
            state.used_since, state.light = since, container.light
        return state

    def _make_one(self) -> None:
        renewals = self._renewals
        try:
            container = self._make(self._closing)
        except Exception as error:  # noqa: BLE001 - whatever it is, waiting callers are told and the thread stays alive
            self._failed(error)
            return
        with self._change:
            self._state.making -= 1
            self.counts.made += 1
            SANDBOX_EVENTS.add("made")
            self._pause, self._state.not_before = FIRST_PAUSE, 0.0
            self._state.missing_since = time.monotonic()
            self._waiting.append(container)
            if self._closing.is_set() or self._renewals != renewals:
                self._discard([container])
            self._change.notify_all()

    def _failed(self, error: Exception) -> None:
        SANDBOX_EVENTS.add("failed")
        if not isinstance(error, SpooldError):
            log.bug("a container could not be made", error=error)
        with self._change:
            self._state.making -= 1
            self._failures, self._failure = self._failures + 1, error
            if not self._closing.is_set() and not self._state.not_before:  # once per outage
                log.warning("no container can be made; trying again", error=error)
            self._state.not_before = time.monotonic() + self._pause
            self._pause = min(LONGEST_PAUSE, self._pause * 2)
            self._change.notify_all()

    def _drop_dead(self, *, first_only: bool = False) -> None:
        """Drop containers that died; with ``first_only`` look no further than the first that lives."""
        dead: list[Runner[Carrier]] = []
        for container in self._waiting:
            if not container.alive():
                dead.append(container)
            elif first_only:
                break
        if dead:
            log.warning("containers ended while they waited; replacing them", count=len(dead))
            self.counts.died += len(dead)
            SANDBOX_EVENTS.add("died", by=len(dead))
            self._discard(dead)

    def _discard(self, containers: list[Runner[Carrier]]) -> None:
        for container in containers:
            self._waiting.remove(container)
            self._used.append((0.0, container))

    def _remove_one(self, container: Runner[Carrier]) -> None:
        try:
            self._remove(container)
        finally:
            with self._change:
                self._state.removing -= 1
                self._change.notify_all()

    def _remove(self, container: Runner[Carrier]) -> None:
        container.close()
        with self._change:
            self.counts.removed += 1
            SANDBOX_EVENTS.add("removed")
