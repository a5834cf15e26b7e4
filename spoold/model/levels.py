"""Turns where one may take long: the owner on whose things least time was spent is next.

Spec: spool-layout.md, "Overload". This is start-time fair queueing, as in ``timeshare``, for one place and without
credit, since a thing is done in milliseconds and nobody has to be behind. An owner of whom nothing waited begins level
with the one who was served last, so they save up no time. Not thread-safe.
"""

from __future__ import annotations

from typing import TypeVar

from spoold.model.turns import Turns

MOST = 1000  # accounts before those that say nothing are forgotten
Thing = TypeVar("Thing")


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


class TimedTurns(Turns[Thing]):
    """Turns by time: whoever takes a thing says afterwards how long it took."""

    def __init__(self) -> None:
        super().__init__()
        self._levels = Levels()
        self._last: int | None = None  # whose turn it was last

    def add(self, owner: int, thing: Thing, priority: int = 0, since: float = 0.0) -> bool:
        """Let a thing wait for its turn."""
        if not self.has(owner):
            self._levels.come(owner)
        return super().add(owner, thing, priority, since)

    def take(self) -> Thing | None:
        """Take the thing whose turn it is; None where nothing waits."""
        owner = self.first(self._levels.level)
        if owner is None:
            return None
        self._levels.serve(owner)
        self._last = owner
        return self.take_from(owner)

    def charge(self, seconds: float) -> None:
        """Charge the owner of the thing that was taken last with the time that it took."""
        if self._last is not None:
            self._levels.charge(self._last, seconds)
