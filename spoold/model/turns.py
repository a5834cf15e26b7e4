"""Turns: decides whose thing is next, so that the things of one owner never delay the first thing of another.

Spec: spool-layout.md, "Overload". Owners take turns, with one thing in each turn. Or a caller ranks the owners, and so
says whose turn it is (see ``timeshare``). Among the things of one owner, the highest priority goes first, then the
oldest, and then the one that came first. To add a thing costs the same however many wait, and so does taking one in
rotation. Taking one by rank costs a little for each owner who waits. Not thread-safe.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

Thing = TypeVar("Thing")
LEAST = 64  # where there are bounds, each owner may have this many things, however many owners there are


class Turns(Generic[Thing]):
    """The waiting things, by owner. ``most`` bounds how many one owner can have here (None: no bound)."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._waiting: dict[int, list[tuple[int, float, int, Thing]]] = {}  # the owner whose turn it is stands first
        self._added = 0
        self._count = 0

    def __len__(self) -> int:
        """Return how many things wait."""
        return self._count

    def has(self, owner: int) -> bool:
        """Tell whether any thing of an owner waits."""
        return owner in self._waiting

    def owners(self) -> Iterable[int]:
        """Return the owners who have things waiting. The owner whose turn it is comes first."""
        return self._waiting.keys()

    def count(self, owner: int) -> int:
        """Return how many things of an owner wait."""
        return len(self._waiting.get(owner, ()))

    def add(self, owner: int, thing: Thing, priority: int = 0, since: float = 0.0) -> bool:
        """Let a thing wait for its turn. It is as old as ``since``. Return False where its owner has too many here."""
        own = self._waiting.setdefault(owner, [])
        if self._most is not None and len(own) >= self._most:
            return False
        self._added += 1
        self._count += 1
        heapq.heappush(own, (-priority, since, self._added, thing))
        return True

    def take(self) -> Thing | None:
        """Take the thing whose turn it is in rotation. None where nothing waits."""
        return self.take_from(next(iter(self._waiting))) if self._waiting else None

    def first(self, rank: Callable[[int], Any], may: Callable[[int], bool] = lambda _: True) -> int | None:
        """Return the owner with the lowest rank of those who ``may``. Among equals it is the one whose turn is next.

        None where no such owner has a thing waiting.
        """
        return min(filter(may, self._waiting), key=rank, default=None)

    def next_of(self, owner: int) -> Thing:
        """Return the first thing of an owner, who has to have one waiting. The thing goes on waiting."""
        return self._waiting[owner][0][-1]

    def take_from(self, owner: int) -> Thing:
        """Take the first thing of an owner, who has to have one waiting."""
        own = self._waiting.pop(owner)
        thing = heapq.heappop(own)[-1]
        if own:
            self._waiting[owner] = own  # behind all others
        self._count -= 1
        return thing

    def clear(self) -> None:
        """Forget all waiting things."""
        self._waiting.clear()
        self._count = 0


class BestTurns(Turns[Thing]):
    """Turns with room for the best things of each owner: for ``total`` of all owners together, or an eighth more.

    A caller that adds a thing gets back the things that have no room. If two things are equal, the older one stays.
    """

    def __init__(self, total: int) -> None:
        super().__init__()
        self._total = total
        self._last: dict[int, tuple[int, float]] = {}  # the rank of each owner's last thing

    @property
    def most(self) -> int:
        """Return how many things each owner has room for."""
        return max(LEAST, self._total // max(1, len(self._waiting)))

    def has_room(self, owner: int, since: float, coming: int = 0) -> bool:
        """Tell whether there is room for a thing with the priority of the last one, beside ``coming`` others."""
        if self.count(owner) + coming < self.most:
            return True
        return self.has(owner) and since < self._last[owner][1]

    def admit(self, owner: int, thing: Thing, priority: int = 0, since: float = 0.0) -> list[tuple[float, Thing]]:
        """Let a thing wait for its turn. Return the things that have no room then, each with its ``since``.

        The thing itself may be among them.
        """
        rank, count = (-priority, since), self.count(owner)
        if count >= self.most and rank >= self._last[owner]:
            return [(since, thing)]
        self.add(owner, thing, priority, since)
        self._last[owner] = max(rank, self._last.get(owner, rank))
        return self._cut(owner) if count >= self.most * 9 // 8 else []

    def _cut(self, owner: int) -> list[tuple[float, Thing]]:
        own = self._waiting[owner]
        own.sort()  # a sorted list is still a heap
        gone = own[self.most :]
        del own[self.most :]
        self._last[owner] = own[-1][:2]
        self._count -= len(gone)
        return [(since, thing) for _, since, _, thing in gone]

    def next_since(self, owner: int) -> float:
        """Return the ``since`` of the first thing of an owner, who has to have one waiting."""
        return self._waiting[owner][0][1]

    def take_from(self, owner: int) -> Thing:
        """Take the first thing of an owner, who has to have one waiting."""
        thing = super().take_from(owner)
        if not self.has(owner):
            del self._last[owner]
        return thing
