"""Scale: makes Slurm start executors while there is work for them, one job for each. They are called pilots.

Spec: spool-layout.md, "Pilots". Each step looks at the spool and at Slurm's list, decides anew, and submits or cancels
jobs. Nothing is kept on disk but a note for people to read. Names tell which pilot a job is, and presence in the spool
tells whether the pilot works. A pilot that runs is never cancelled while it renews its presence: it ends by itself when
it is idle. Steps go by the clock, so that Slurm is not asked more often while more comes. Where there is no pilot and
no work, the first entry that appears is worth a step at once.

What fails: Slurm may not answer, or may list nothing of what was there. That changes nothing, and pilots work on. A
pilot that ends at once is tried again after longer and longer pauses, and is never given up.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterable
from typing import NamedTuple

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
from spoold.model import ids
from spoold.model.errors import OperatorError
from spoold.model.ids import Hint, Kept
from spoold.model.scaling import PoolSettings
from spoold.model.states import Role, State
from spoold.slurm import Job, Slurm, passed_on
from spoold.spool.builds import BuildStore
from spoold.spool.store import Spool
from spoold.upkeep.pools import Noting, Pools, PoolState

log = Log(Role.SCALE)


class Presence(NamedTuple):
    """The processes of executors whose presence is renewed, and those whose presence has run out."""

    renewed: set[str]
    silent: set[str]


class Scale(Threadless):
    """All pools of one spool. ``slurm`` runs Slurm's commands."""

    def __init__(self, settings: Settings, slurm: Slurm | None = None) -> None:
        """Raise :class:`OperatorError` where the settings name no pool."""
        if not settings.scale.pools:
            raise OperatorError(
                "the settings name no pool for `spoold scale`: add a table [scale.pools.NAME] with `most`"
            )
        self._settings = settings
        self._slurm = slurm or Slurm(passed_on())
        self._spool = Spool(settings, Role.SCALE)
        self._demand = Demand(settings, self._spool, BuildStore(settings))
        self._renewals = Renewals(settings.lease)
        self._pools: dict[str, Pool] = {}
        self._lost: set[int] = set()  # lost jobs that were logged
        self._rests = False  # whether the last look on the clock found no work and no pilot
        self._noting = Noting(self._spool.root)
        self._told = Pools(slurm=False, demand=0, pools=[])

    @property
    def watched(self) -> list[str]:
        """Return the directory where work appears; none where that is polled, which is no sooner than the clock."""
        return [] if self._settings.spool.remote else [State.NEW]

    def wants(self, hint: Hint) -> bool:
        """Tell whether a change is the first work after a rest. Another thread calls this."""
        return self._rests and ids.parse_entry(hint.name) is not None

    def start(self) -> None:
        """Do nothing: there is nothing to prepare."""

    def stop(self) -> None:
        """End. Pilots go on without scale."""
        self._noting.end()

    def apply_settings(self, settings: Settings) -> None:
        """Use other settings. Pilots that run keep what they began with."""
        self._settings = settings

    def measure(self) -> None:
        """Do nothing: each step measures."""

    def step(self, hints: Iterable[Hint] | None = None) -> float:
        """Look once, and submit or cancel jobs. Return the seconds until the next look."""
        scale = self._settings.scale
        self._rests = False
        listed = self._slurm.jobs(os.geteuid())
        SLURM_READY.set(listed is not None)
        if listed is None:
            self._tell(msgspec.structs.replace(self._told, slurm=False))
            return scale.interval
        most = sum(pool.most * pool.entries for pool in scale.pools.values())
        demand = self._demand.count(most)
        SCALE_DEMAND.set(demand)
        present = self._presence()
        counts = wanted(scale.pools.values(), demand)
        states = [
            self._step_of(name, pool, want, listed, present)
            for (name, pool), want in zip(scale.pools.items(), counts, strict=True)
        ]
        pilots = sum(each.pending + each.starting + each.running for each in states)
        # After a step for a hint the clock has its turn first: much may come that needs no pilot.
        self._rests = hints is None and not demand and not pilots
        self._tell(Pools(slurm=True, demand=demand, pools=states))
        return scale.interval

    def _tell(self, pools: Pools) -> None:
        self._told = pools
        self._noting.note(pools, self._spool.clock.monotonic())

    def _step_of(self, name: str, pool: PoolSettings, want: int, listed: list[Job], present: Presence) -> PoolState:
        now = self._spool.clock.monotonic()
        memory = self._pools.setdefault(name, Pool(name, self._settings.lease.limit))
        renewed, silent = (
            {number for number in range(pool.most) if _process(name, number) in each} for each in present
        )
        seen = memory.see(listed, renewed, now, silent)
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

    def _presence(self) -> Presence:
        directory = self._spool.queue.path("tmp")
        names = [name for name in fsops.names(directory) if name.startswith("executor-") and name.endswith(Kept.HOST)]
        found = {name.removesuffix(Kept.HOST): fsops.mtime(os.path.join(directory, name)) for name in names}
        mtimes = {process: mtime for process, mtime in found.items() if mtime is not None}
        clock = self._spool.clock
        renewed = self._renewals.among(mtimes, clock.file_system() if mtimes else 0.0, clock.monotonic())
        return Presence(renewed, mtimes.keys() - renewed)

    def _order(self, name: str, number: int, pool: PoolSettings) -> tuple[list[str], str]:
        """Return the options of sbatch for a pilot, and its command.

        ``exec`` lets signals reach the executor. It gets SIGTERM early enough to drain, and its own lifetime ends
        before that. No pilot is requeued, since it would wait for two minutes. Another one is submitted instead. It
        gets the few variables with which sbatch itself runs. With ``--export=NONE`` a login shell on the node would be
        asked for others first, which may take seconds.
        """
        words = [pool.program, "--config", pool.config, "executor", "--name", f"{name}-{number}"]
        words += ["--slots", str(pool.slots), "--idle", f"{pool.idle:g}"]
        words += ["--lifetime", f"{pool.lifetime:g}", "--drain", f"{pool.drain:g}"]
        options = [
            "--ntasks=1",
            f"--cpus-per-task={pool.slots}",
            f"--time={_minutes(pool.time)}",
            "--no-requeue",
            "--export=ALL",
            "--open-mode=append",
            f"--signal=B:TERM@{pool.notice}",
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
    """Return a time limit as Slurm reads it, in minutes and seconds."""
    whole = math.ceil(seconds)
    return f"{whole // 60}:{whole % 60:02}"
