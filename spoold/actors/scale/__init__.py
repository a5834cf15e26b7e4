"""Scale: has Slurm start executors while there is work for them, one job for each: pilots.

Spec: spool-layout.md, "Pilots". Each step looks at the spool and at Slurm's list, decides anew, and submits or cancels.
Nothing is kept on disk, but for a note that people look at: names say which pilot is which, and presence in the spool
whether it works. Pilots that run are
never cancelled while they renew their presence: they end by themselves when they are idle.

What fails: Slurm that does not answer, or lists nothing of what was there, changes nothing, and pilots work on. A pilot
that ends at once is tried again, ever more seldom, and never given up.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterable

import msgspec

from spoold.actors import Threadless
from spoold.actors.scale.decision import Decision, Pilots, decide, job_name, number_of, wanted
from spoold.actors.scale.demand import Demand, Renewals
from spoold.actors.scale.pilots import Pool
from spoold.config import Settings
from spoold.host import fsops
from spoold.host.log import Log
from spoold.host.metrics import (
    PILOTS,
    PILOTS_CANCELLED,
    PILOTS_LOST,
    PILOTS_SUBMITTED,
    PILOTS_WANTED,
    SCALE_DEMAND,
    SLURM_READY,
)
from spoold.model.errors import OperatorError
from spoold.model.ids import Hint, Kept
from spoold.model.scaling import MARGIN, PoolSettings
from spoold.model.states import Role
from spoold.slurm import Job, Slurm, passed_on
from spoold.spool.builds import BuildStore
from spoold.spool.store import Spool
from spoold.upkeep.pools import Noting, Pools, PoolState

log = Log(Role.SCALE)


class Scale(Threadless):
    """All pools of one spool; ``slurm`` are the commands."""

    def __init__(self, settings: Settings, slurm: Slurm | None = None) -> None:
        """Raise :class:`OperatorError` where the settings name no pool."""
        if not settings.scale.pools:
            raise OperatorError(
                "there is no pool for `spoold scale`: put a table [scale.pools.NAME] into the settings, with `most`"
            )
        self._settings = settings
        self._slurm = slurm or Slurm(passed_on())
        self._spool = Spool(settings, Role.SCALE)
        self._demand = Demand(settings, self._spool, BuildStore(settings))
        self._renewals = Renewals(settings.lease)
        self._pools: dict[str, Pool] = {}
        self._lost: set[int] = set()  # jobs of which that was said
        self._noting = Noting(self._spool.root)
        self._told = Pools(slurm=False, demand=0, pools=[])

    @property
    def watched(self) -> list[str]:
        """Return no directory: it goes by the clock alone."""
        return []

    def start(self) -> None:
        """Do nothing: there is nothing to begin with."""

    def stop(self) -> None:
        """End; pilots go on without it."""
        self._noting.end()

    def apply_settings(self, settings: Settings) -> None:
        """Go by other settings; pilots that run keep what they began with."""
        self._settings = settings

    def measure(self) -> None:
        """Measure nothing: each step does."""

    def step(self, hints: Iterable[Hint] | None = None) -> float:  # noqa: ARG002 - all actors are called alike
        """Look once, and submit or cancel; return the seconds until the next look."""
        scale = self._settings.scale
        listed = self._slurm.jobs(os.geteuid())
        SLURM_READY.set(listed is not None)
        if listed is None:
            self._tell(msgspec.structs.replace(self._told, slurm=False))
            return scale.interval
        most = sum(pool.most * pool.entries for pool in scale.pools.values())
        demand = self._demand.count(most)
        SCALE_DEMAND.set(demand)
        present = self._present()
        counts = wanted(scale.pools.values(), demand)
        states = [
            self._step_of(name, pool, want, listed, present)
            for (name, pool), want in zip(scale.pools.items(), counts, strict=True)
        ]
        self._tell(Pools(slurm=True, demand=demand, pools=states))
        return scale.interval

    def _tell(self, pools: Pools) -> None:
        self._told = pools
        self._noting.note(pools, self._spool.clock.monotonic())

    def _step_of(self, name: str, pool: PoolSettings, want: int, listed: list[Job], present: set[str]) -> PoolState:
        now = self._spool.clock.monotonic()
        memory = self._pools.setdefault(name, Pool(name, self._settings.lease.limit))
        numbers = {number for number in range(pool.most) if _process(name, number) in present}
        seen = memory.see(listed, numbers, now)
        self._tell_of_lost(seen)
        decision = decide(pool, want, seen)
        self._carry_out(name, pool, memory, decision)
        state = seen.state(name, pool, want)
        PILOTS_WANTED.set(want, name)
        for kind in ("pending", "starting", "running", "lost"):
            PILOTS.set(getattr(state, kind), name, kind)
        return state

    def _carry_out(self, name: str, pool: PoolSettings, memory: Pool, decision: Decision) -> None:
        for job in decision.cancel:
            if self._slurm.cancel(job):
                memory.cancelled(job)
                PILOTS_CANCELLED.add()
                log.info("cancelled", pool=name, pilot=number_of(name, job), job=job.id)
        for number in decision.submit:
            title = job_name(name, number)
            options, command = self._order(name, number, pool)
            id_ = self._slurm.submit(title, options, command)
            now = self._spool.clock.monotonic()
            if id_ is None:
                memory.rest(number, now)
                return  # the next would hardly fare better, and each may take as long as a command may
            memory.submitted(id_, title, now)
            PILOTS_SUBMITTED.add()
            log.info("submitted", pool=name, pilot=number, job=id_)

    def _tell_of_lost(self, seen: Pilots) -> None:
        for jobs in seen.jobs.values():
            for job in jobs:
                if job.id in seen.lost and job.id not in self._lost:
                    self._lost.add(job.id)
                    PILOTS_LOST.add()
                    log.warning(
                        "lost: Slurm says that it runs, and its executor is not there", pilot=job.name, job=job.id
                    )

    def _present(self) -> set[str]:
        """Return the processes of executors whose presence is renewed."""
        directory = self._spool.queue.path("tmp")
        names = [name for name in fsops.names(directory) if name.startswith("executor-") and name.endswith(Kept.HOST)]
        found = {name.removesuffix(Kept.HOST): fsops.mtime(os.path.join(directory, name)) for name in names}
        mtimes = {process: mtime for process, mtime in found.items() if mtime is not None}
        clock = self._spool.clock
        return self._renewals.among(mtimes, clock.file_system() if mtimes else 0.0, clock.monotonic())

    def _order(self, name: str, number: int, pool: PoolSettings) -> tuple[list[str], str]:
        """Return the options of sbatch for a pilot, and its command.

        ``exec`` lets signals reach the executor. It gets SIGTERM so early that it can drain, and before that ends by
        itself. A requeued pilot would wait for two minutes, so none is: another one is submitted.
        """
        notice = math.ceil(pool.drain + MARGIN)
        words = [pool.program, "--config", pool.config, "executor", "--name", f"{name}-{number}"]
        words += ["--slots", str(pool.slots), "--idle", f"{pool.idle:g}"]
        words += ["--lifetime", f"{max(1.0, pool.time - notice - MARGIN):g}", "--drain", f"{pool.drain:g}"]
        options = [
            "--ntasks=1",
            f"--cpus-per-task={pool.slots}",
            f"--time={_minutes(pool.time)}",
            "--no-requeue",
            "--export=NONE",
            "--open-mode=append",
            f"--signal=B:TERM@{notice}",
            f"--output={pool.log}",
            "--chdir=/",
        ]
        named = {
            "mem": f"{math.ceil(pool.memory / (1 << 20))}M" if pool.memory else "",
            "partition": pool.partition,
            "account": pool.account,
            "comment": pool.comment,
        }
        options += [f"--{option}={value}" for option, value in named.items() if value]
        return [*options, *pool.options], f"exec {shlex.join(words)}"


def _process(pool: str, number: int) -> str:
    return f"executor-{pool}-{number}"


def _minutes(seconds: float) -> str:
    """Return a time limit as Slurm reads it, minutes and seconds."""
    whole = math.ceil(seconds)
    return f"{whole // 60}:{whole % 60:02}"
