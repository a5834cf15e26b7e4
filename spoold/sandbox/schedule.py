"""When a pool makes a sandbox, and when it removes one: decided from numbers, without waiting for anything.

Theory of operation: see ``pool``. Times are seconds on the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

QUIET = 0.02  # seconds without a job until a moment counts as quiet
YIELD = 0.25  # seconds for which making and removing let jobs go first
SPARE = 0.25  # share of the CPU time; where as much is idle, there is some to spare
LOOK = 0.25  # seconds until the idle share is asked for again
LINGER = 5.0  # seconds for which used sandboxes wait for spare CPU time
NEVER = float("inf")


@dataclass(frozen=True)
class Rules:
    """How many sandboxes are ``wanted`` ready, how many more in ``reserve`` for bursts, and how many ``threads`` work.

    The threads make and remove sandboxes. ``backlog`` bounds the used sandboxes that are not yet removed. ``recycled``
    ones come back from their job.
    """

    wanted: int
    reserve: int
    backlog: int
    threads: int
    recycled: bool


@dataclass
class Situation:
    """What there is at a moment: how many wait for a job, are made, are removed, run one; and how many callers wait."""

    last_job: float  # when the last job ended
    missing_since: float  # since when too few sandboxes wait
    waiting: int = 0
    making: int = 0
    removing: int = 0
    running: int = 0
    takers: int = 0
    used: int = 0  # sandboxes that wait to be removed
    used_since: float = 0.0  # since when the next of them waits
    light: bool = True  # whether that one holds little memory
    not_before: float = 0.0  # after a failure, no sandbox is made before this
    closing: bool = False


class Schedule:
    """Says when to do what. ``idle`` returns the share of the CPU time that is idle."""

    def __init__(self, rules: Rules, idle: Callable[[], float]) -> None:
        self.rules = rules
        self._idle = idle

    def missing(self, seen: Situation) -> int:
        """Return how many to make. Recycled ones that run a job count, since they come back."""
        ready = seen.waiting + seen.making
        if self.rules.recycled:
            return max(seen.takers, self.rules.wanted - seen.running) - ready
        return self.rules.wanted + seen.takers - ready

    def is_crowded(self, seen: Situation) -> bool:
        """Tell whether used sandboxes cannot wait any longer."""
        return seen.used > self.rules.backlog // 2

    def making_due(self, seen: Situation, now: float) -> float:
        """Return when the next sandbox is to be made."""
        missing = self.missing(seen)
        if seen.closing or missing + self.rules.reserve <= 0:
            return NEVER
        if seen.takers > seen.making + seen.waiting:
            return now
        due = self._quiet(seen, seen.missing_since) if missing > 0 else self._spare(seen, now)
        return max(seen.not_before, due)

    def removing_due(self, seen: Situation, now: float) -> float:
        """Return when the next sandbox is to be removed."""
        if not seen.used:
            return NEVER
        if seen.closing or self.is_crowded(seen):
            return now
        if seen.light and now < seen.used_since + LINGER:
            return min(self._spare(seen, now), seen.used_since + LINGER)
        return self._quiet(seen, seen.used_since)

    def _spare(self, seen: Situation, now: float) -> float:
        """Return when to do work that can wait for spare CPU time, or when to ask for that again."""
        if seen.making + seen.removing:
            return NEVER
        return now if self._idle() >= SPARE else now + LOOK

    def _quiet(self, seen: Situation, since: float) -> float:
        """Return when to do work that could be done ``since`` then, without taking CPU time from jobs."""
        if seen.making + seen.removing >= max(1, self.rules.threads // 2):
            return NEVER  # a thread that is at it looks again when it is done
        return since + YIELD if seen.running else min(since + YIELD, seen.last_job + QUIET)
