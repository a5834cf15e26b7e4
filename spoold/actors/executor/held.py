"""Answers that wait: entries in ``new/`` that need no sandbox, but have no room for an answer in their owner's share.

Spec: spool-layout.md, "Shares" and "Overload". Only the names are kept. An entry is read again only when there is room,
and then a few of each owner at a time. Otherwise all answers of an owner who has used up a share would use it up once
more, or all of them would be read in vain. Not thread-safe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from spoold.model.ids import Entry


class Held:
    """The entries whose answers wait, by their person."""

    def __init__(self) -> None:
        self._entries: set[Entry] = set()
        self._of: dict[int, deque[Entry]] = {}

    def __contains__(self, entry: Entry) -> bool:
        """Tell whether an entry waits here."""
        return entry in self._entries

    def __bool__(self) -> bool:
        """Tell whether any entry waits here."""
        return bool(self._entries)

    def add(self, person: int, entry: Entry) -> None:
        """Let an entry wait."""
        if entry not in self._entries:
            self._entries.add(entry)
            self._of.setdefault(person, deque()).append(entry)

    def release(self, may_begin: Callable[[int], bool], most: int) -> list[Entry]:
        """Take out up to ``most`` entries of each person who may begin, and return them."""
        released = []
        for person in [person for person in self._of if may_begin(person)]:
            waiting = self._of[person]
            released += [waiting.popleft() for _ in range(min(most, len(waiting)))]
            if not waiting:
                del self._of[person]
        self._entries.difference_update(released)
        return released
