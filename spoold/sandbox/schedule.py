"""When a pool makes a sandbox, and when it removes one: decided from numbers, without waiting for anything.

Theory of operation: see ``pool``. Times are seconds on the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

QUIET = 0.02  # seconds without a job until a moment counts as quiet
YIELD = 0.25  # seconds for which making and removing let jobs go first
SPARE = 0.25  # share of the CPU time that is idle where there is some to spare
LOOK = 0.25  # seconds until that is asked again
LINGER = 5.0  # seconds for which what is used waits for that
NEVER = float("inf")


@dataclass(frozen=True)
class Rules:
    """How many are ``wanted`` ready, how many more in ``reserve`` for bursts, and how many threads make and remove.

    ``backlog`` bounds what is used and not yet removed. What is ``recycled`` comes back from its job.
    """

    wanted: int
    reserve: int
    backlog: int
    threads: int
    recycled: bool


@dataclass
class Situation:
    """What there is at a moment: how many wait for a job, are made, are removed, and run one; and who waits for one."""

    last_job: float  # when one ended
    missing_since: float  # since when too few wait
    waiting: int = 0
    making: int = 0
    removing: int = 0
    running: int = 0
    takers: int = 0
    used: int = 0  # waiting to be removed
    used_since: float = 0.0  # the next of them
    light: bool = True  # that one, which holds little memory
    not_before: float = 0.0  # none is made, since it failed
    closing: bool = False


class Schedule:
    """Says when to do what; ``idle`` returns the share of the CPU time that is idle."""

    def __init__(self, rules: Rules, idle: Callable[[], float]) -> None:
        self.rules = rules
        self._idle = idle

    def missing(self, seen: Situation) -> int:
        """Return how many to make; recycled ones that run a job come back from it."""
        ready = seen.waiting + seen.making
        if self.rules.recycled:
            return max(seen.takers, self.rules.wanted - seen.running) - ready
        return self.rules.wanted + seen.takers - ready

    def is_crowded(self, seen: Situation) -> bool:
        """Tell whether what is used cannot wait any longer."""
        return seen.used > self.rules.backlog // 2

    def making_due(self, seen: Situation, now: float) -> float:
        """Return when the next one is to be made."""
        missing = self.missing(seen)
        if seen.closing or missing + self.rules.reserve <= 0:
            return NEVER
        if seen.takers > seen.making + seen.waiting:
            return now
        due = self._quiet(seen, seen.missing_since) if missing > 0 else self._spare(seen, now)
        return max(seen.not_before, due)

    def removing_due(self, seen: Situation, now: float) -> float:
        """Return when the next one is to be removed."""
        if not seen.used:
            return NEVER
        if seen.closing or self.is_crowded(seen):
            return now
        if seen.light and now < seen.used_since + LINGER:
            return min(self._spare(seen, now), seen.used_since + LINGER)
        return self._quiet(seen, seen.used_since)

    def _spare(self, seen: Situation, now: float) -> float:
        """Return when to do, or to ask again about, what can wait until there is CPU to spare."""
        if seen.making + seen.removing:
            return NEVER
        return now if self._idle() >= SPARE else now + LOOK

    def _quiet(self, seen: Situation, since: float) -> float:
        """Return when to do what could be done ``since`` then without taking the CPU from jobs."""
        if seen.making + seen.removing >= max(1, self.rules.threads // 2):
            return NEVER  # whoever is at it looks again when it is done
        return since + YIELD if seen.running else min(since + YIELD, seen.last_job + QUIET)
