"""For how long intake leaves an owner's files alone, after looks at some in vain.

Spec: spool-layout.md, "Overload". A file that has to stay where it is can be looked at in vain for ever: an upload on
its way may change all the time. So such looks take a part of the time at the most, for each owner. Not thread-safe.
"""

from __future__ import annotations

from spoold.host.clock import Clock

REST = 4.0  # for how many times as long as looks in vain took its owner's files wait
CREDIT = 1.0  # seconds that may be owed of that before they do
MOST = 1000  # accounts before those that are over are forgotten


class Rests:
    """For how long the files of an owner are not looked at, since looks at some were in vain."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._owed: dict[int, float] = {}  # until when, on the monotonic clock

    def charge(self, owner: int, seconds: float) -> None:
        """Note a look in vain, which took so much of a processor's time."""
        now = self._clock.monotonic()
        if len(self._owed) >= MOST:
            self._owed = {each: until for each, until in self._owed.items() if until > now}
        self._owed[owner] = max(now, self._owed.get(owner, now)) + REST * seconds

    def left(self, owner: int) -> float:
        """Return for how many seconds the files of an owner still wait."""
        owed = self._owed.get(owner)
        return 0.0 if owed is None else max(0.0, owed - CREDIT - self._clock.monotonic())
