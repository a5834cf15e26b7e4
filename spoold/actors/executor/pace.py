"""How fast an executor looks at what it has seen.

Theory of operation. With nothing in line each look may be for what a slot waits for, so nothing is more urgent. Once so
many are ready that the slots are *fed*, looks only take their time: with 100,000 waiting, a third of all jobs' rate. So
looks rest then, for a multiple of the time that they took. What was just told is looked at all the same: it may be of
an owner who has nothing in line, and whoever took least of the looks' time comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

LOOKS = 64  # entries that one step looks at
LONG = 0.1  # seconds after which a step looks at no more: hints are followed in between
FED = 16  # entries that are ready, for each slot
PART, REST = 0.01, 8.0  # seconds of looks at once then, and for how many times as long they rest


class Some(NamedTuple):
    """What a step may look at: so many entries, and for so many seconds."""

    most: int
    seconds: float


class Pace:
    """Says how much to look at, for so many ``slots``.

    ``ready`` returns how many entries are in line, ``clock`` is the monotonic one.
    """

    def __init__(self, ready: Callable[[], int], clock: Callable[[], float], slots: int) -> None:
        self._ready, self._clock = ready, clock
        self._enough = FED * slots
        self._rests_until = 0.0

    def some(self, told: int) -> Some:
        """Return what a step may look at to which so many entries were ``told``."""
        if not self._is_fed:
            return Some(LOOKS, LONG)
        return Some(told, LONG) if self._clock() < self._rests_until else Some(LOOKS, PART)

    def looked(self, seconds: float) -> None:
        """Rest after looks that took so many seconds, unless a rest goes on."""
        now = self._clock()
        if now >= self._rests_until:
            self._rests_until = now + REST * seconds

    @property
    def rest(self) -> float:
        """Return the seconds until looks go on."""
        return max(0.0, self._rests_until - self._clock()) if self._is_fed else 0.0

    @property
    def _is_fed(self) -> bool:
        return self._ready() >= self._enough
