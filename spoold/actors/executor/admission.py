"""Admission: jobs that run at the same time never ask for more memory together than there is for them.

Spec: spool-layout.md, "Overload". ``Memory`` is the account of how much is free, and how much will be free when.
``ready`` says whose turn it is. A job that does not fit is passed over, or room is kept for it.

This is EASY backfilling (Lifka, "The ANL/IBM SP Scheduling System", JSSPP 1995; Mu'alem and Feitelson, "Utilization,
Predictability, Workloads, and User Runtime Estimates in Scheduling the IBM SP2 with Backfilling", IEEE TPDS 12(6),
2001). The first job that waits has a reservation for the latest time at which the jobs that run will have freed enough.
Others go before it where they do not delay it. One thing differs from the papers: a job may hold its memory for longer
than its time limit, since its start and its answer take time as well. ``MARGIN`` is for these.

Nothing here is thread-safe. Times are the monotonic clock's.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import NamedTuple

from msgspec.structs import replace

from spoold.config import Settings
from spoold.host import machine
from spoold.model.limits import for_jobs, within
from spoold.model.timeshare import Use

MARGIN = 5.0  # seconds for a job to start and for its answer to be published, beside its own time limits


def fitted(settings: Settings) -> Settings:
    """Return ``settings`` with this host's memory and slots where they name none, and no limit above that memory."""
    memory = settings.executor.memory or for_jobs(machine.memory())
    slots = settings.executor.slots or len(machine.cpus())
    executor = replace(settings.executor, memory=memory, slots=slots)
    return replace(settings, executor=executor, limits=within(settings.limits, memory))


class Memory:
    """The bytes for all jobs together. A job that asks for more than there is gets all of it, and runs alone."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._given: dict[Use, Given] = {}

    def fits(self, size: int) -> bool:
        """Tell whether ``size`` bytes are free."""
        return min(size, self._size) <= self._free

    def part(self, size: int) -> float:
        """Return the part of the whole that ``size`` bytes are, 1 at most."""
        return min(size / self._size, 1.0)

    def has(self, person: int) -> bool:
        """Tell whether a job of this person has any memory."""
        return any(use.owner == person for use in self._given)

    def take(self, use: Use, size: int, seconds: float) -> None:
        """Give a job its bytes, which must be free, for the ``seconds`` that its limits allow."""
        given = Given(min(size, self._size), seconds)
        self._given[use] = given
        self._free -= given.size

    def is_given(self, use: Use) -> bool:
        """Tell whether a job has its bytes."""
        return use in self._given

    def give_back(self, use: Use) -> None:
        """Take back what a job had."""
        self._free += self._given.pop(use).size

    def room_for(self, size: int) -> tuple[float, int]:
        """Return when ``size`` bytes will be free at the latest, and how many more bytes will be free by then.

        The time is reckoned from the limits of the jobs that run. It is in the past where the bytes are free now, or
        where a job takes longer than its limits.
        """
        wanted = min(size, self._size)
        ends = sorted((use.began + given.seconds + MARGIN, given.size) for use, given in self._given.items())
        sums = accumulate((freed for _, freed in ends), initial=self._free)
        times = (-math.inf, *(end for end, _ in ends))
        return next((end, free - wanted) for end, free in zip(times, sums, strict=True) if free >= wanted)


class Given(NamedTuple):
    """The memory of one job: its bytes, and for how many seconds its limits allow it at most."""

    size: int
    seconds: float
