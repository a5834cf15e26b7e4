"""The pilots of one pool, as look after look sees them.

Spec: spool-layout.md, "Pilots". The memory here only makes decisions slower or safer. A job that Slurm no longer lists
is believed to be there for the length of a lease. A pilot that ended soon after it began rests before it is tried
again. A process that starts anew begins without this memory.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import NamedTuple

from spoold.actors.scale.decision import Pilots, number_of
from spoold.slurm import Job, JobState

QUICK = 10.0  # seconds: a pilot that ended within this time could not work
FIRST, LONGEST = 1.0, 60.0  # seconds that it then rests: twice as long each time


class _Rest(NamedTuple):
    seconds: float
    until: float


class Pool:
    """The pilots of the pool ``name``. Times are the monotonic clock's, ``lease`` is in seconds."""

    def __init__(self, name: str, lease: float) -> None:
        self._name, self._lease = name, lease
        self._known: dict[int, tuple[Job, float]] = {}  # jobs, and when they were last listed
        self._began: dict[int, float] = {}  # when running jobs were first seen to run
        self._absent: dict[int, float] = {}  # running jobs without renewed presence, and since when
        self._met: set[int] = set()  # jobs whose presence was seen to be renewed
        self._waited: set[int] = set()  # jobs that were seen to wait
        self._ended: set[int] = set()  # jobs whose end was seen
        self._cancelled: set[int] = set()
        self._rests: dict[int, _Rest] = {}

    def see(self, listed: list[Job], present: set[int], now: float, silent: AbstractSet[int] = frozenset()) -> Pilots:
        """Take in what Slurm lists, and which pilots renew their presence. Return the pilots as they are now.

        The presence of the ``silent`` ones is there, and was last renewed a lease ago.
        """
        self._take_in({job.id: job for job in listed if number_of(self._name, job) is not None}, now)
        jobs: dict[int, list[Job]] = {}
        for job, _ in self._known.values():
            number = number_of(self._name, job)
            if number is not None:
                jobs.setdefault(number, []).append(job)
                self._follow(number, job, present=number in present, silent=number in silent, now=now)
        lost = {id_ for id_, since in self._absent.items() if now - since >= self._lease}
        resting = {number for number, rest in self._rests.items() if now < rest.until}
        return Pilots(jobs, frozenset(present), lost, frozenset(resting))

    def _take_in(self, listed: dict[int, Job], now: float) -> None:
        """Believe what is listed.

        A job that is no longer listed, and whose end was not seen, is believed to be there for the length of a lease.
        """
        for id_, job in listed.items():
            self._known[id_] = (job, now)
        for id_, (job, seen) in list(self._known.items()):
            if id_ not in listed and (job.state is JobState.ENDED or now - seen >= self._lease):
                del self._known[id_]
        for memory in (self._began, self._absent):
            for id_ in memory.keys() - self._known.keys():
                del memory[id_]
        self._ended &= self._known.keys()
        self._waited &= self._known.keys()
        self._cancelled &= self._known.keys()
        self._met &= self._known.keys()

    def _follow(self, number: int, job: Job, *, present: bool, silent: bool, now: float) -> None:
        if job.state is JobState.RUNS:
            self._began.setdefault(job.id, now)
            if present:
                self._absent.pop(job.id, None)
                self._met.add(job.id)
            elif silent and job.id in self._met:  # else it is still starting, and another had its name before
                self._absent[job.id] = now - self._lease
            else:
                self._absent.setdefault(job.id, now)
            if now - self._began[job.id] >= QUICK:
                self._rests.pop(number, None)
            return
        self._absent.pop(job.id, None)
        if job.state is JobState.WAITS:
            self._waited.add(job.id)
        if job.state is JobState.ENDED and job.id not in self._ended:
            self._ended.add(job.id)
            waited = job.id in self._waited  # if so, it began and ended between two looks
            began = self._began.pop(job.id, now if waited else None)
            if began is not None and now - began < QUICK and job.id not in self._cancelled:
                self.rest(number, now)

    def submitted(self, id_: int, name: str, now: float) -> None:
        """Note a job that was submitted. It counts as there, even if squeue does not list it yet."""
        self._known[id_] = (Job(id_, name, JobState.WAITS), now)
        self._waited.add(id_)

    def cancelled(self, job: Job) -> None:
        """Note that a job is cancelled, so that its end says nothing about its pilot."""
        self._cancelled.add(job.id)

    def rest(self, number: int, now: float) -> None:
        """Let a pilot rest that could not be submitted, or that ended soon."""
        before = self._rests.get(number)
        seconds = min(LONGEST, before.seconds * 2) if before else FIRST
        self._rests[number] = _Rest(seconds, now + seconds)
