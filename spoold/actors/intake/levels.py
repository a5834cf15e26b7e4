"""Whose file intake looks at next, by the time that it spent on files of theirs.

Spec: spool-layout.md, "Overload". This is start-time fair queueing, as in ``model/timeshare``, for one place and
without credit: a file is done in milliseconds, so nobody has to be behind. Whoever comes when nothing of theirs waits
is level with whoever was served last, so no time is saved up.

A file that has to stay where it is can be looked at in vain for ever: an upload on its way may change all the time. So
such looks take a part of the time at the most, for each owner. Not thread-safe.
"""

from __future__ import annotations

from spoold.host.clock import Clock

REST = 4.0  # for how many times as long as looks in vain took its owner's files wait
CREDIT = 1.0  # seconds that may be owed of that before they do
MOST = 1000  # accounts before those that say nothing are forgotten


class Levels:
    """The accounts of all owners, in seconds."""

    def __init__(self) -> None:
        self._levels: dict[int, float] = {}
        self._served = 0.0  # the account that was served last, as it was then

    def come(self, owner: int) -> None:
        """Note that something comes of an owner's of whom nothing waits."""
        if len(self._levels) >= MOST:  # those who wait are not below
            self._levels = {each: level for each, level in self._levels.items() if level > self._served}
        self._levels[owner] = max(self.level(owner), self._served)

    def level(self, owner: int) -> float:
        """Return an owner's account: the lowest is next."""
        return self._levels.get(owner, self._served)

    def serve(self, owner: int) -> None:
        """Note that it is an owner's turn."""
        self._served = max(self._served, self.level(owner))

    def charge(self, owner: int, seconds: float) -> None:
        """Add what an owner's turn took."""
        self._levels[owner] = self.level(owner) + seconds


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
