"""Turns by time, where one turn may take long: next is the owner whose things have taken the least time.

Spec: spool-layout.md, "Overload". This is start-time fair queueing, as in ``timeshare``, but for one place. It has no
credit: a thing takes milliseconds, so nobody needs to be behind. When an owner without waiting things gets one, they
begin level with the owner who was served last. So they save up no time. Not thread-safe.
"""

from __future__ import annotations

from typing import TypeVar

from spoold.model.turns import Turns

MOST = 1000  # number of accounts at which those that differ in nothing from a new one are forgotten
Thing = TypeVar("Thing")


class Levels:
    """The accounts of all owners, in seconds."""

    def __init__(self) -> None:
        self._levels: dict[int, float] = {}
        self._served = 0.0  # the level of the account that was served last, at that time

    def come(self, owner: int) -> None:
        """Note that an owner without waiting things gets one."""
        if len(self._levels) >= MOST:  # no account of an owner who waits is below _served
            self._levels = {each: level for each, level in self._levels.items() if level > self._served}
        self._levels[owner] = max(self.level(owner), self._served)

    def level(self, owner: int) -> float:
        """Return an owner's account. The owner with the lowest is next."""
        return self._levels.get(owner, self._served)

    def serve(self, owner: int) -> None:
        """Note that an owner's turn begins."""
        self._served = max(self._served, self.level(owner))

    def charge(self, owner: int, seconds: float) -> None:
        """Add the time that an owner's turn took."""
        self._levels[owner] = self.level(owner) + seconds


class TimedTurns(Turns[Thing]):
    """Turns by time: a caller that takes a thing says afterwards how long it took."""

    def __init__(self) -> None:
        super().__init__()
        self._levels = Levels()
        self._last: int | None = None  # the owner whose turn was last

    def add(self, owner: int, thing: Thing, priority: int = 0, since: float = 0.0) -> bool:
        """Let a thing wait for its turn."""
        if not self.has(owner):
            self._levels.come(owner)
        return super().add(owner, thing, priority, since)

    def take(self) -> Thing | None:
        """Take the thing whose turn it is. None where nothing waits."""
        owner = self.first(self._levels.level)
        if owner is None:
            return None
        self._levels.serve(owner)
        self._last = owner
        return self.take_from(owner)

    def charge(self, seconds: float) -> None:
        """Charge the owner of the last taken thing with the time that the thing took."""
        if self._last is not None:
            self._levels.charge(self._last, seconds)
