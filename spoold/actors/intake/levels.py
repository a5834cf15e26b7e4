"""Whose file intake looks at next, by the time that it spent on files of theirs.

Spec: spool-layout.md, "Overload". This is start-time fair queueing, as in ``model/timeshare``, for one place and
without credit: a file is done in milliseconds, so nobody has to be behind. Whoever comes when nothing of theirs waits
is level with whoever was served last, so no time is saved up. Not thread-safe.
"""

from __future__ import annotations

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
