"""A sandbox whose containers wait in a pool: what engines that make containers have in common.

An engine says how one is made (``_make``), and calls ``_fill`` once it knows by which plan. ``run`` may be called from
many threads. See ``pool`` for what is made and removed when, ``turn`` for the containers of one submission, ``view``
for what a job sees of the store.
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
from spoold.sandbox.parts import WHOLE, OnPhase
from spoold.sandbox.pinning import Pinning
from spoold.sandbox.pool import Counts, Pool
from spoold.sandbox.runner import Carrier, Runner
from spoold.sandbox.sizes import Planned, Size
from spoold.sandbox.turn import Turn
from spoold.sandbox.view import View

MOST_THREADS = 8  # that make and remove containers at once
# Containers that wait for a burst: so much of the machine's memory, of which a container that waits takes so much.
RESERVE_SHARE, RESERVE_EACH, MOST_RESERVE = 1 / 32, 12 * MIB, 48


class PooledSandbox(Generic[Carrier, Planned]):
    """Runs jobs in containers of one engine, see :class:`spoold.sandbox.Sandbox`."""

    _view: View[Carrier, Planned]

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._settings, self._runtime = settings, runtime
        self._plan: Planned | None = None
        self._pool: Pool[Carrier] | None = None
        self._preparing, self._planning = threading.Lock(), threading.Lock()
        self._holders = itertools.cycle(random.sample(HOLDERS, len(HOLDERS)))  # there may be other executors
        self._pinning = Pinning(machine.cpus())
        self._checkers = Checkers()

    def prepare(self) -> None:
        """See :meth:`spoold.sandbox.Sandbox.prepare`."""
        raise NotImplementedError

    def _make(self, plan: Planned, cancelled: threading.Event, size: Size | None = None) -> Runner[Carrier]:
        """Return a started container of its own holder that waits; without a size that of jobs with default limits."""
        raise NotImplementedError

    def _start(self, cancelled: threading.Event) -> Runner[Carrier]:
        """Return a container for the pool."""
        assert self._plan is not None  # noqa: S101 - prepare() set it before the pool that calls this was made
        return self._make(self._plan, cancelled)

    def _check_nix_shell(self) -> None:
        """See that jobs can start nix-shell where the settings want that."""
        if self._settings.nix.enter == "nix-shell" and not self._runtime.nix:
            raise OperatorError(
                'nix.enter is "nix-shell", and the builder provides no Nix to start it with: '
                "restart the builder with the same settings"
            )

    def _fill(self, plan: Planned, memory: int = 0) -> None:
        """Have containers wait that are made by ``plan``, on a host with ``memory`` bytes, for the limits of now."""
        plan = replace(plan, settings=self._settings)
        changed = plan != self._plan
        self._plan = plan
        if self._pool is None:
            slots = self._settings.executor.slots or len(machine.cpus())
            waiting = self._settings.sandbox.waiting
            self._pool = Pool(
                self._start,
                wanted=slots if waiting < 0 else waiting,
                threads=min(MOST_THREADS, max(2, slots)),
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
        """Have containers made for other limits from now on, and those replaced that wait."""
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
        with self._turn(self._pool, cancelled, on_output) as turn:
            if job.cases:
                return run_cases(job, judge, turn.run, on_phase, self._checkers)
            return turn.run(job, WHOLE, on_phase)

    def _turn(self, pool: Pool[Carrier], cancelled: threading.Event, on_output: OnOutput | None) -> Turn[Carrier]:
        def replaced(container: Runner[Carrier], job: Job, beside: int) -> Runner[Carrier]:
            container.close()
            assert self._plan is not None  # noqa: S101 - the container was made by one
            return self._make(self._plan, cancelled, container.plan.size_for_all(job, beside))

        pinning = self._pinning if self._settings.sandbox.pin_cpus else None
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
        """Return a container like those for jobs, which the caller closes."""
        assert self._plan is not None  # noqa: S101 - whoever asks has prepared it
        return self._make(self._plan, threading.Event())

    @property
    def started(self) -> str:
        """Say how containers start, for the doctor."""
        raise NotImplementedError

    @property
    def plan(self) -> Planned | None:
        """Return how containers are made, None before ``prepare``."""
        return self._plan

    @property
    def viewed(self) -> bool | None:
        """Tell whether jobs see their own closure of the store only; None before ``prepare``."""
        return self._view.narrow

    @property
    def counts(self) -> Counts:
        """Return what the pool has done so far."""
        return self._pool.counts if self._pool else Counts()

    def measure(self) -> None:
        """Measure the containers."""
        if self._pool is not None:
            self._pool.measure()

    def rest(self) -> None:
        """Keep nothing ready any more; jobs go on."""
        if self._pool is not None:
            self._pool.rest()

    def close(self) -> None:
        """Remove what waits and what is used."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
