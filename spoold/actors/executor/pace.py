"""How fast an executor looks at the entries that it has seen.

Theory of operation. While nothing is in line, any look may find the job that a slot waits for, so nothing is more
urgent. Once so many entries are ready that the slots are *fed*, looks only take time away: with 100,000 entries waiting
it was a third of the rate of jobs. So looks then rest, for a multiple of the time that they took. Entries that were
just told are looked at all the same. They may be of an owner who has nothing in line, and the owner whose looks took
the least time comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

LOOKS = 64  # entries that one step looks at
LONG = 0.1  # seconds after which a step looks at no more, so that hints are followed in between
FED = 16  # entries in line, for each slot, with which the slots are fed
PART, REST = 0.01, 8.0  # then: seconds of looks at once, and the multiple of these for which looks rest


class Some(NamedTuple):
    """How much a step may look at: ``most`` entries, for ``seconds``."""

    most: int
    seconds: float


class Pace:
    """Tells how much to look at, in an executor of ``slots`` slots.

    ``ready`` returns how many entries are in line. ``clock`` is the monotonic one.
    """

    def __init__(self, ready: Callable[[], int], clock: Callable[[], float], slots: int) -> None:
        self._ready, self._clock = ready, clock
        self._enough = FED * slots
        self._rests_until = 0.0

    def some(self, told: int) -> Some:
        """Return how much a step may look at after ``told`` entries were told."""
        if not self._is_fed:
            return Some(LOOKS, LONG)
        return Some(told, LONG) if self._clock() < self._rests_until else Some(LOOKS, PART)

    def looked(self, seconds: float) -> None:
        """Rest after looks that took ``seconds``, unless a rest goes on."""
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
