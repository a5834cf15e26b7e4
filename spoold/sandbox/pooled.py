"""A sandbox whose containers wait in a pool: what all engines that make containers have in common.

An engine implements ``_make``, which makes a container, and calls ``_fill`` once it knows the plan for that. ``run``
may be called from many threads. See ``pool`` for when containers are made and removed, ``turn`` for the containers of
one submission, and ``view`` for what a job sees of the store.
"""

from __future__ import annotations

import itertools
import random
import threading
from dataclasses import replace
from typing import Generic

import msgspec

from spoold.config import Settings
from spoold.host import machine
from spoold.model.errors import OperatorError, TemporaryError
from spoold.model.job import Job, JobResult, Runtime
from spoold.model.limits import MIB, Limits
from spoold.sandbox import Judge
from spoold.sandbox.cases import run_cases
from spoold.sandbox.checkers import Checkers
from spoold.sandbox.facts import HOLDERS
from spoold.sandbox.live import OnOutput
from spoold.sandbox.parts import WHOLE, OnPhase, Part
from spoold.sandbox.pinning import Pinning, Together
from spoold.sandbox.pool import Counts, Pool
from spoold.sandbox.runner import Carrier, Runner
from spoold.sandbox.sizes import Planned, Size
from spoold.sandbox.turn import Turn
from spoold.sandbox.view import View

# Threads that make and remove containers: for each slot, and at most. A thread mostly waits for the engine, so fewer
# threads would leave CPUs idle while jobs wait for containers.
THREADS_EACH, MOST_THREADS = 3, 16
# Containers that wait for a burst: the share of the machine's memory for all of them, the bytes that each takes while
# it waits, and their greatest number.
RESERVE_SHARE, RESERVE_EACH, MOST_RESERVE = 1 / 32, 12 * MIB, 48


class PooledSandbox(Generic[Carrier, Planned]):
    """Runs jobs in containers of one engine, see :class:`spoold.sandbox.Sandbox`."""

    _view: View[Carrier, Planned]

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._settings, self._runtime = settings, runtime
        self._plan: Planned | None = None
        self._pool: Pool[Carrier] | None = None
        self._preparing, self._planning = threading.Lock(), threading.Lock()
        self._holders = itertools.cycle(random.sample(HOLDERS, len(HOLDERS)))  # at random: there may be other executors
        self._pinning = Pinning(machine.cpus())
        self._checkers = Checkers()

    def prepare(self) -> None:
        """See :meth:`spoold.sandbox.Sandbox.prepare`."""
        raise NotImplementedError

    def _make(self, plan: Planned, cancelled: threading.Event, size: Size | None = None) -> Runner[Carrier]:
        """Return a started container with its own holder; without a size it has that of jobs with default limits."""
        raise NotImplementedError

    def _start(self, cancelled: threading.Event) -> Runner[Carrier]:
        """Return a container for the pool."""
        assert self._plan is not None  # noqa: S101 - prepare() set it before it made the pool that calls this
        return self._make(self._plan, cancelled)

    def _check_nix_shell(self) -> None:
        """Raise :class:`OperatorError` where the settings want nix-shell and jobs cannot start it."""
        if self._settings.nix.enter == "nix-shell" and not self._runtime.nix:
            raise OperatorError(
                'nix.enter is "nix-shell", but the builder provides no Nix for it: '
                "restart the builder with the same settings"
            )

    def _fill(self, plan: Planned, memory: int = 0) -> None:
        """Keep containers ready, made by ``plan`` for the current limits. The host has ``memory`` bytes."""
        plan = replace(plan, settings=self._settings)
        changed = plan != self._plan
        self._plan = plan
        if self._pool is None:
            slots = self._settings.executor.slots or len(machine.cpus())
            waiting = self._settings.sandbox.waiting
            self._pool = Pool(
                self._start,
                wanted=slots if waiting < 0 else waiting,
                threads=min(MOST_THREADS, THREADS_EACH * slots),
                backlog=2 * max(2, slots),
                reserve=0
                if waiting >= 0 or plan.recycled
                else min(MOST_RESERVE, int(memory * RESERVE_SHARE) // RESERVE_EACH),
                recycled=plan.recycled,
            )
            return
        if changed:
            self._pool.renew()
        self._pool.wake()

    def go_by(self, limits: Limits) -> None:
        """Make containers for other limits from now on, and replace those that wait."""
        with self._planning:
            self._settings = msgspec.structs.replace(self._settings, limits=limits)
            if self._plan is not None:
                self._fill(self._plan)

    def run(
        self,
        job: Job,
        on_phase: OnPhase,
        cancelled: threading.Event,
        judge: Judge | None = None,
        on_output: OnOutput | None = None,
    ) -> JobResult:
        """Run one job, each part of it in a container that no other job is in."""
        if self._pool is None:
            raise TemporaryError("the sandbox is not prepared")
        pinning = Together(self._pinning) if self._settings.sandbox.pin_cpus else None
        with self._turn(self._pool, pinning, cancelled, on_output) as turn:
            if job.cases:
                with self._turn(self._pool, pinning, cancelled, None) as beside:
                    return run_cases(job, judge, turn.run, on_phase, self._checkers, beside=beside.run)
            return turn.run(job, WHOLE, on_phase)

    def _turn(
        self,
        pool: Pool[Carrier],
        pinning: Together | None,
        cancelled: threading.Event,
        on_output: OnOutput | None,
    ) -> Turn[Carrier]:
        def replaced(container: Runner[Carrier], job: Job, part: Part) -> Runner[Carrier]:
            container.close()
            assert self._plan is not None  # noqa: S101 - the container was made by a plan
            size = container.plan.size_for_all(job, part.beside, halved=part.talks)
            return self._make(self._plan, cancelled, size)

        return Turn(
            pool,
            self._view,
            pinning,
            replaced=replaced,
            is_current=lambda container: container.plan == self._plan,
            cancelled=cancelled,
            on_output=on_output,
        )

    def on_trial(self) -> Runner[Carrier]:
        """Return a container like those for jobs; the caller closes it."""
        assert self._plan is not None  # noqa: S101 - the caller has prepared it
        return self._make(self._plan, threading.Event())

    @property
    def started(self) -> str:
        """Return how containers start, in words for the doctor."""
        raise NotImplementedError

    @property
    def plan(self) -> Planned | None:
        """Return the plan by which containers are made, None before ``prepare``."""
        return self._plan

    @property
    def viewed(self) -> bool | None:
        """Tell whether jobs see only their own closure of the store; None before ``prepare``."""
        return self._view.narrow

    @property
    def counts(self) -> Counts:
        """Return the counts of the pool so far."""
        return self._pool.counts if self._pool else Counts()

    def measure(self) -> None:
        """Update the metrics of the containers."""
        if self._pool is not None:
            self._pool.measure()

    def rest(self) -> None:
        """Keep nothing ready any more; running jobs go on."""
        if self._pool is not None:
            self._pool.rest()

    def close(self) -> None:
        """Remove waiting and used containers."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
