"""Which jobs to submit and to cancel: a decision on what is seen, without any state of its own.

Spec: spool-layout.md, "Pilots". The presence of an executor is the truth, and Slurm's list a hint. A pilot is
``POOL-k``, and its job is called ``spoold-POOL-k``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from spoold.model.scaling import PoolSettings
from spoold.slurm import Job, JobState
from spoold.upkeep.pools import PoolState


def job_name(pool: str, number: int) -> str:
    """Return the name of a pilot's job."""
    return f"spoold-{pool}-{number}"


PUT_OFF = "BeginTime"  # why a job that Slurm requeued waits, for two minutes: ours never ask to wait


def number_of(pool: str, job: Job) -> int | None:
    """Return which pilot of a pool a job is, None where it is none of them."""
    match = re.fullmatch(rf"spoold-{re.escape(pool)}-(0|[1-9][0-9]{{0,5}})", job.name)
    return int(match[1]) if match else None


class Pilots(NamedTuple):
    """The pilots of a pool: their jobs, the pilots whose presence is renewed, the lost jobs, and the pilots that rest.

    ``jobs`` are by pilot. A job is lost if Slurm says that it runs, but its presence was not renewed for a lease.
    """

    jobs: dict[int, list[Job]]
    present: AbstractSet[int]
    lost: Collection[int] = ()  # ids of jobs
    resting: AbstractSet[int] = frozenset()

    @property
    def live(self) -> set[int]:
        """Return the pilots that work or will work."""
        hoped = {
            number
            for number, jobs in self.jobs.items()
            if any(_is_hoped_for(job) and job.id not in self.lost for job in jobs)
        }
        return hoped | set(self.present)

    def state(self, name: str, pool: PoolSettings, want: int) -> PoolState:
        """Return how many jobs and pilots there are of each kind."""
        jobs = [(number, job) for number, jobs in self.jobs.items() for job in jobs]
        return PoolState(
            pool=name,
            most=pool.most,
            wanted=want,
            pending=sum(job.state is JobState.WAITS for _, job in jobs),
            starting=sum(
                job.state is JobState.RUNS and number not in self.present and job.id not in self.lost
                for number, job in jobs
            ),
            running=len(self.present),
            lost=sum(job.id in self.lost for _, job in jobs),
        )


def _is_hoped_for(job: Job) -> bool:
    return job.state is JobState.RUNS or (job.state is JobState.WAITS and job.reason != PUT_OFF)


class Decision(NamedTuple):
    """The pilots to submit, and the jobs to cancel."""

    submit: list[int]
    cancel: list[Job]


def wanted(pools: Iterable[PoolSettings], demand: int) -> list[int]:
    """Return how many pilots each pool should have for ``demand`` entries. Earlier pools are filled first."""
    found, left = [], float(demand)
    for pool in pools:
        count = min(pool.most, max(pool.least, math.ceil(max(0.0, left) / pool.entries)))
        found.append(count)
        left -= count * pool.entries
    return found


def decide(pool: PoolSettings, want: int, seen: Pilots) -> Decision:
    """Decide for one pool. Pilots that run are never too many, since they end when they are idle."""
    cancel = [job for jobs in seen.jobs.values() for job in jobs if job.id in seen.lost]
    cancel += [job for jobs in seen.jobs.values() for job in _doubles(jobs, seen.lost)]
    cancel += [
        job
        for number, jobs in seen.jobs.items()
        for job in jobs
        if job.state is JobState.WAITS and not _is_hoped_for(job) and number not in seen.present
    ]
    live = seen.live
    free = [number for number in range(pool.most) if _is_free(number, seen) and number not in seen.resting]
    submit = free[: max(0, want - len(live))]
    waiting = sorted(number for number in live - seen.present if _only_waits(seen.jobs.get(number, ()), seen.lost))
    too_many = waiting[::-1][: max(0, len(live) - want)]
    cancel += [job for number in too_many for job in seen.jobs[number] if job.state is JobState.WAITS]
    return Decision(submit, list(dict.fromkeys(cancel)))


def _is_free(number: int, seen: Pilots) -> bool:
    """Tell whether nobody has a pilot's name: no pilot that is just ending, no orphan of a job that Slurm forgot."""
    return number not in seen.present and all(job.state is JobState.ENDED for job in seen.jobs.get(number, ()))


def _only_waits(jobs: Iterable[Job], lost: Collection[int]) -> bool:
    states = {job.state for job in jobs if job.id not in lost}
    return JobState.WAITS in states and JobState.RUNS not in states


def _doubles(jobs: list[Job], lost: Collection[int]) -> list[Job]:
    """Return the jobs that wait beside another of the same name: sbatch did not report that it had been submitted."""
    live = [job for job in jobs if job.state in (JobState.WAITS, JobState.RUNS) and job.id not in lost]
    first = min(live, key=lambda job: (job.state is JobState.WAITS, job.id), default=None)
    return [job for job in live if job is not first and job.state is JobState.WAITS]
