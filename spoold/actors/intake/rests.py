"""How long intake leaves an owner's files alone after it looked at some of them in vain.

Spec: spool-layout.md, "Overload". A file that has to stay where it is could be looked at in vain for ever: an upload on
its way may change all the time. So for each owner, such looks may only take a part of the time. Not thread-safe.
"""

from __future__ import annotations

from spoold.host.clock import Clock

REST = 4.0  # an owner's files wait for this many times the time of looks in vain
CREDIT = 1.0  # seconds of such a wait that may add up before the files wait
MOST = 1000  # accounts that are kept before those that are over are forgotten


class Rests:
    """How long the files of each owner are left alone after looks in vain."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._owed: dict[int, float] = {}  # until when, on the monotonic clock

    def charge(self, owner: int, seconds: float) -> None:
        """Note a look in vain that took ``seconds`` of CPU time."""
        now = self._clock.monotonic()
        if len(self._owed) >= MOST:
            self._owed = {each: until for each, until in self._owed.items() if until > now}
        self._owed[owner] = max(now, self._owed.get(owner, now)) + REST * seconds

    def left(self, owner: int) -> float:
        """Return how many seconds the files of an owner still wait."""
        owed = self._owed.get(owner)
        return 0.0 if owed is None else max(0.0, owed - CREDIT - self._clock.monotonic())
