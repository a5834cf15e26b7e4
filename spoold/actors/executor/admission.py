"""Admission: jobs that run at once never ask for more memory together than there is for them.

Spec: spool-layout.md, "Overload". ``Memory`` is the account of what is free. ``ready`` says whose turn it is: a job
that does not fit is passed over, or room is kept for it. ``Hold`` says how long that may go on, and what it costs.

Nothing here is thread-safe. Times are the monotonic clock's.
"""

from __future__ import annotations

import os
from collections import Counter

from msgspec.structs import replace

from spoold.config import Settings
from spoold.host import machine
from spoold.model.limits import for_jobs, within

HOLD = 30.0  # seconds; longer than a job takes by default


def fitted(settings: Settings) -> Settings:
    """Return ``settings`` with what memory and slots there are on this host, and no limit above that memory."""
    memory = settings.executor.memory or for_jobs(machine.memory())
    slots = settings.executor.slots or os.cpu_count() or 1
    executor = replace(settings.executor, memory=memory, slots=slots)
    return replace(settings, executor=executor, limits=within(settings.limits, memory))


class Memory:
    """So many bytes for all jobs together. One that asks for more than there is counts as all of it: it runs alone."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._jobs: Counter[int] = Counter()  # by person

    def fits(self, size: int) -> bool:
        """Tell whether so many bytes are free."""
        return min(size, self._size) <= self._free

    def part(self, size: int) -> float:
        """Return which part of all so many bytes are, 1 at most."""
        return min(size / self._size, 1.0)

    def has(self, person: int) -> bool:
        """Tell whether a person has any."""
        return person in self._jobs

    def take(self, person: int, size: int) -> None:
        """Give a job its bytes, which must be free."""
        self._free -= min(size, self._size)
        self._jobs[person] += 1

    def give_back(self, person: int, size: int) -> None:
        """Take back what a job had."""
        self._free += min(size, self._size)
        self._jobs[person] -= 1
        if not self._jobs[person]:
            del self._jobs[person]


class Hold:
    """Room that is kept for a job that does not fit, while others that would fit wait.

    It is kept for ``HOLD`` seconds at a time, whoever it is for, and for as long again none is. When the job begins for
    which it was kept, that is over. Slots that had nothing to do meanwhile are charged to whoever it was kept for.
    """

    def __init__(self) -> None:
        self._began = float("-inf")
        self._job: object = None  # that it was kept for last
        self._person = 0
        self._slots = 0  # which are idle for it now
        self._since = 0.0
        self._owed: dict[int, float] = {}

    def may(self, now: float) -> bool:
        """Tell whether room may be kept now."""
        return not self._began + HOLD <= now < self._began + 2 * HOLD

    def keep(self, job: object, person: int, slots: int, now: float) -> None:
        """Keep room for a person's job, for which so many slots are idle until the next ``pause``."""
        if now >= self._began + 2 * HOLD:
            self._began = now
        self._job, self._person, self._slots, self._since = job, person, slots, now

    def pause(self, now: float) -> None:
        """Count what was kept until now; it is kept no more, unless that is said again."""
        if self._slots:
            owed = self._owed.get(self._person, 0.0)
            self._owed[self._person] = owed + self._slots * max(0.0, min(now, self._began + HOLD) - self._since)
            self._slots = 0

    def end(self, job: object, person: int) -> float:
        """Note that a person's job begins; return the slot-seconds for which room was kept for that person."""
        if job is self._job:
            self._began, self._job = float("-inf"), None
        return self._owed.pop(person, 0.0)

    def left(self, now: float) -> float | None:
        """Return for how many seconds room is kept yet, None where none is."""
        return max(0.0, self._began + HOLD - now) if self._slots else None
