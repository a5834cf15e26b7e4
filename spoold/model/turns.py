"""Turns: who is next among all that waits, so that what one owner has waiting delays nobody else's first.

Spec: spool-layout.md, "Overload". Owners take turns, one thing each, or whoever ranks them says whose turn it is (see
``timeshare``). Among the things of one owner the higher priority goes first, then what is older, and then what came
first. Adding costs the same however much waits, and so does taking in rotation; taking by rank costs a little for each
owner who waits. Not thread-safe.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

Thing = TypeVar("Thing")
LEAST = 64  # things that each owner may have here where there are bounds, however many owners there are


class Turns(Generic[Thing]):
    """What waits, by owner; ``most`` bounds what one owner can have here (None: nothing does)."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._waiting: dict[int, list[tuple[int, float, int, Thing]]] = {}  # whose turn it is stands first
        self._added = 0
        self._count = 0

    def __len__(self) -> int:
        """Return how much waits."""
        return self._count

    def has(self, owner: int) -> bool:
        """Tell whether anything of an owner's waits."""
        return owner in self._waiting

    def owners(self) -> Iterable[int]:
        """Return the owners of whom something waits, the one whose turn it is first."""
        return self._waiting.keys()

    def count(self, owner: int) -> int:
        """Return how much of an owner's waits."""
        return len(self._waiting.get(owner, ()))

    def add(self, owner: int, thing: Thing, priority: int = 0, since: float = 0.0) -> bool:
        """Let a thing wait for its turn, as old as it is ``since`` a time; False where its owner has too many here."""
        own = self._waiting.setdefault(owner, [])
        if self._most is not None and len(own) >= self._most:
            return False
        self._added += 1
        self._count += 1
        heapq.heappush(own, (-priority, since, self._added, thing))
        return True

    def take(self) -> Thing | None:
        """Take the thing whose turn it is in rotation; None where nothing waits."""
        return self.take_from(next(iter(self._waiting))) if self._waiting else None

    def first(self, rank: Callable[[int], Any], may: Callable[[int], bool] = lambda _: True) -> int | None:
        """Return the owner with the lowest rank of those who ``may``, the one whose turn it is among equals.

        None where nothing of theirs waits.
        """
        return min(filter(may, self._waiting), key=rank, default=None)

    def next_of(self, owner: int) -> Thing:
        """Return the first thing of an owner of whom something waits; it goes on waiting."""
        return self._waiting[owner][0][-1]

    def take_from(self, owner: int) -> Thing:
        """Take the first thing of an owner of whom something waits."""
        own = self._waiting.pop(owner)
        thing = heapq.heappop(own)[-1]
        if own:
            self._waiting[owner] = own  # behind all others
        self._count -= 1
        return thing

    def clear(self) -> None:
        """Forget all that waits."""
        self._waiting.clear()
        self._count = 0


class BestTurns(Turns[Thing]):
    """Turns with room for the first of each owner's things: for ``total`` of all owners together, or an eighth more.

    Whoever adds a thing gets back what has no room. Of equals the older one stays.
    """

    def __init__(self, total: int) -> None:
        super().__init__()
        self._total = total
        self._last: dict[int, tuple[int, float]] = {}  # how the last thing of each owner's ranks

    @property
    def most(self) -> int:
        """Return how many things each owner has room for."""
        return max(LEAST, self._total // max(1, len(self._waiting)))

    def has_room(self, owner: int, since: float, coming: int = 0) -> bool:
        """Tell whether there is room for a thing of the last one's priority, beside others that are ``coming``."""
        if self.count(owner) + coming < self.most:
            return True
        return self.has(owner) and since < self._last[owner][1]

    def admit(self, owner: int, thing: Thing, priority: int = 0, since: float = 0.0) -> list[tuple[float, Thing]]:
        """Let a thing wait for its turn; return what has no room then, it or others, each with its ``since``."""
        rank, count = (-priority, since), self.count(owner)
        if count >= self.most and rank >= self._last[owner]:
            return [(since, thing)]
        self.add(owner, thing, priority, since)
        self._last[owner] = max(rank, self._last.get(owner, rank))
        return self._cut(owner) if count >= self.most * 9 // 8 else []

    def _cut(self, owner: int) -> list[tuple[float, Thing]]:
        own = self._waiting[owner]
        own.sort()  # a heap still
        gone = own[self.most :]
        del own[self.most :]
        self._last[owner] = own[-1][:2]
        self._count -= len(gone)
        return [(since, thing) for _, since, _, thing in gone]

    def next_since(self, owner: int) -> float:
        """Return how old the first thing of an owner is of whom something waits."""
        return self._waiting[owner][0][1]

    def take_from(self, owner: int) -> Thing:
        """Take the first thing of an owner of whom something waits."""
        thing = super().take_from(owner)
        if not self.has(owner):
            del self._last[owner]
        return thing
