"""When a run has to be over, what it left out for that, and what its time went into."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.ways import say

LEAST_PACE = 1.0  # a quicker machine than the one that the usual seconds are of gives no reason to do more


class Deadline:
    """The seconds from ``began`` (on the monotonic clock) until all has to be done; infinity where nothing is promised.

    How long a step takes depends on what else the machine does. So the first step, whose usual time is known, tells the
    ``pace`` of the machine: how many times as long as usual things take now. A later step begins only where what is
    left is enough for it at this pace.
    """

    def __init__(self, began: float, seconds: float = math.inf) -> None:
        self._began, self.seconds = began, seconds
        self.pace = LEAST_PACE
        self.left_out: dict[str, str] = {}  # by name: why
        self.spent: dict[str, float] = {}  # seconds, by step
        if time.monotonic() - began >= 1:
            self.spent["before measuring"] = round(time.monotonic() - began, 1)

    @property
    def left(self) -> float:
        """Return how many seconds are left; negative where it is over."""
        return self._began + self.seconds - time.monotonic()

    @contextmanager
    def step(self, name: str, usual: float = math.inf) -> Iterator[None]:
        """Note how long a step takes; one that says how many seconds it ``usual``ly takes tells the pace."""
        began = time.monotonic()
        yield
        taken = time.monotonic() - began
        self.spent[name] = round(taken, 1)
        self.pace = max(self.pace, taken / usual)

    def allows(self, name: str, usual: float, later: float = 0.0) -> bool:
        """Tell whether there is time for a step that usually takes so many seconds, and for what comes ``later``.

        Where there is not, the step counts as left out.
        """
        if (usual + later) * self.pace <= self.left:
            return True
        needed, left = usual * self.pace, max(0.0, self.left - later * self.pace)
        self.leave_out(name, f"it takes about {needed:.0f} s at this load, and {left:.0f} s were left for it")
        return False

    def leave_out(self, name: str, why: str) -> None:
        """Note that something is not measured."""
        say(f"left out: {name}: {why}")
        self.left_out[name] = why

    def broken(self) -> str:
        """Return why more time was taken than was promised; empty where the promise was kept."""
        if self.left >= 0:
            return ""
        steps = ", ".join(f"{name} {seconds:g} s" for name, seconds in self.spent.items())
        return f"{self.seconds - self.left:.0f} s, not the {self.seconds:.0f} s that are for measuring: {steps}"
