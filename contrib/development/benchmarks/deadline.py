"""When a run has to be over, what it leaves out for that, and where its time goes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.ways import say

LEAST_PACE = 1.0  # no less: on a machine quicker than the one with the usual seconds we do not do more


class Deadline:
    """The time until all has to be done: ``seconds`` from ``began`` (monotonic), infinity where nothing is promised.

    How long a step takes depends on what else the machine does. So the first step, whose usual time is known, tells the
    ``pace`` of the machine: how many times as long as usual a step takes now. A later step begins only where the time
    that is left is enough for it at this pace.
    """

    def __init__(self, began: float, seconds: float = math.inf) -> None:
        self._began, self.seconds = began, seconds
        self.pace = LEAST_PACE
        self.left_out: dict[str, str] = {}  # the reason, by name
        self.spent: dict[str, float] = {}  # seconds, by step
        if time.monotonic() - began >= 1:
            self.spent["before measuring"] = round(time.monotonic() - began, 1)

    @property
    def left(self) -> float:
        """Return how many seconds are left, a negative number where the time is over."""
        return self._began + self.seconds - time.monotonic()

    @contextmanager
    def step(self, name: str, usual: float = math.inf) -> Iterator[None]:
        """Note how long a step takes; with its ``usual`` seconds, also note the pace."""
        began = time.monotonic()
        yield
        taken = time.monotonic() - began
        self.spent[name] = round(taken, 1)
        self.pace = max(self.pace, taken / usual)

    def allows(self, name: str, usual: float, later: float = 0.0) -> bool:
        """Tell whether there is time for a step of ``usual`` seconds and for the steps after it, of ``later`` seconds.

        Where there is not, the step counts as left out.
        """
        if (usual + later) * self.pace <= self.left:
            return True
        needed, left = usual * self.pace, max(0.0, self.left - later * self.pace)
        self.leave_out(name, f"it takes about {needed:.0f} s at this load, but only {left:.0f} s were left for it")
        return False

    def leave_out(self, name: str, why: str) -> None:
        """Note that something is not measured."""
        say(f"left out: {name}: {why}")
        self.left_out[name] = why

    def broken(self) -> str:
        """Return why the run took longer than promised, "" where it kept the promise."""
        if self.left >= 0:
            return ""
        steps = ", ".join(f"{name} {seconds:g} s" for name, seconds in self.spent.items())
        return f"{self.seconds - self.left:.0f} s instead of {self.seconds:.0f} s: {steps}"
