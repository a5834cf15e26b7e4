"""The sandbox on Docker: a container per job, or one after the other, taken from a pool of waiting ones.

``prepare`` is where everything is checked that would otherwise fail each job: the engine answers, isolates and limits
its containers (``checks``), has our image and starts it (``trial``). It may be called again at any time, also while
jobs run. ``run`` may be called from many threads. See ``walls`` for what holds a job, ``pool`` for what is made and
removed when, ``view`` for what a job sees of the store, ``family`` for whose a container is.
"""

from __future__ import annotations

import itertools
import random
import threading
from dataclasses import replace

import docker
import msgspec

from spoold.config import Settings
from spoold.engines.docker import checks, image, trial
from spoold.engines.docker.connection import DockerConnection, ImageGoneError
from spoold.engines.docker.container import Container, start
from spoold.engines.docker.family import Family
from spoold.engines.docker.image import Image
from spoold.engines.docker.turn import Turn
from spoold.engines.docker.view import View
from spoold.engines.docker.walls import DockerPlan
from spoold.host import machine
from spoold.host.log import Log
from spoold.model.errors import OperatorError, TemporaryError
from spoold.model.findings import refuse
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
from spoold.sandbox.runner import Runner

log = Log("sandbox")

MOST_THREADS = 8  # that make and remove containers at once
# Containers that wait for a burst: so much of the machine's memory, of which a container that waits takes so much.
RESERVE_SHARE, RESERVE_EACH, MOST_RESERVE = 1 / 32, 12 * MIB, 48


class DockerSandbox:
    """Runs jobs in containers of the engine that the settings name."""

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._settings, self._runtime = settings, runtime
        self._engine = DockerConnection(settings.docker.host)
        self._family = Family(self._engine, settings)
        self._plan: DockerPlan | None = None
        self._pool: Pool[Container] | None = None
        self._preparing, self._imaging, self._planning = threading.Lock(), threading.Lock(), threading.Lock()
        self._view = View(self._engine)
        self._holders = itertools.cycle(random.sample(HOLDERS, len(HOLDERS)))  # there may be other executors
        self._pinning = Pinning(machine.cpus())
        self._checkers = Checkers()
        self._elsewhere = False  # whether it was said that the store cannot be looked at

    def prepare(self) -> None:
        """Connect, check the engine, make the image, start a container on trial, remove what was left behind."""
        if self._settings.nix.enter == "nix-shell" and not self._runtime.nix:
            raise OperatorError(
                'nix.enter is "nix-shell", and the builder provides no Nix to start it with: '
                "restart the builder with the same settings"
            )
        with self._preparing:
            with self._engine.client() as api:
                information = api.info()
                refuse(checks.of_engine(information, self._settings), f"Docker at {self._engine.where}")
                store = self._store()
                made = self._ensure_image(api)
            self._family.remove_orphans()
            first = DockerPlan(
                settings=self._settings,
                runtime=self._runtime,
                image=made,
                store=store,
                labels=self._family.labels,
                network_disabled=True,
                unified=information.get("CgroupVersion") == "2",
                remapped="name=userns" in (information.get("SecurityOptions") or ()),
            )
            plan = trial.find_plan(self._engine, first, list(information.get("Runtimes") or ()))
            self._check_pinning(plan, information.get("NCPU") or 1)
            self._view.try_out(plan)
            if not self._view.narrow and not plan.recycled:
                plan = trial.with_names(self._engine, plan)
            with self._planning:
                self._fill(plan, information.get("MemTotal") or 0)
            with self._engine.client() as api:
                image.remove_old(api, made.name)

    def _check_pinning(self, plan: DockerPlan, cpus: int) -> None:
        """See that jobs can be pinned, where they are to be, on a host with so many CPUs."""
        if not self._settings.sandbox.pin_cpus:
            return
        if not plan.resizable:
            raise OperatorError(
                "sandbox.pin_cpus is set, and the runtime cannot move a container that runs to another CPU: "
                "unset it, or choose another docker.runtime"
            )
        if self._elsewhere:
            self._pinning = Pinning(range(cpus))

    def _store(self) -> str:
        """Return the directory of the engine's host that jobs get as their store."""
        found = checks.store(self._settings.nix, self._engine.where)
        if found is None and not self._elsewhere:
            self._elsewhere = True
            log.warning(
                "the engine may be on another host: who can change the directories above the store is not looked at",
                engine=self._engine.where,
                store=self._settings.nix.physical_store,
            )
        return found or self._settings.nix.physical_store

    def _ensure_image(self, api: docker.APIClient) -> Image:
        with self._imaging:  # of many that miss it one makes it, and the others find that one
            return image.ensure(api, self._runtime)

    def _fill(self, plan: DockerPlan, memory: int = 0) -> None:
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

    def _turn(self, pool: Pool[Container], cancelled: threading.Event, on_output: OnOutput | None) -> Turn:
        def replaced(container: Runner[Container], job: Job, beside: int) -> Runner[Container]:
            container.close()
            size = container.plan.size_for_all(job, beside)
            return start(self._engine, container.transport.plan, cancelled, next(self._holders), size)

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

    def _start(self, cancelled: threading.Event) -> Runner[Container]:
        plan = self._plan
        assert plan is not None  # noqa: S101 - prepare() set it before the pool that calls this was made
        try:
            made = start(self._engine, plan, cancelled, next(self._holders))
        except ImageGoneError:  # "docker image prune" takes what no container uses at the moment
            log.info("the image is gone; making it again", image=plan.image.name)
            with self._engine.client() as api:
                again = replace(plan, image=self._ensure_image(api))
            with self._planning:
                if self._plan is plan:
                    self._plan = again
            made = start(self._engine, again, cancelled, next(self._holders))
        self._view.cover(made)
        return made

    @property
    def plan(self) -> DockerPlan | None:
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
        """Stop and remove what is left of this sandbox; what cannot be now is an orphan to the next process."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        self._family.settle()
        self._view.close()
        self._family.remove_own()
