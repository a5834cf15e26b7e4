"""Files in the drop box that do nothing yet: uploads on their way, and cancels of unknown submissions.

Spec: spool-layout.md, "Acceptance" and "Cancelling". For each file, intake remembers how it was, and since when. So
intake can tell whether the file still changes, and whether its owner has kept the name for too long. The number of
files that are remembered has a bound for each owner, and the others wait. Not thread-safe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from spoold.host import attributes, strangers
from spoold.host.attributes import Identity
from spoold.host.clock import Clock
from spoold.host.strangers import Dropped

MOST = 50_000  # files of one owner that are remembered


class Unfinished(NamedTuple):
    """A file that could not be used when it was looked at, and its ``kind``. It counts for ``person``.

    It has been as it is since ``since``, and its owner has had the name since ``first``.
    """

    identity: Identity
    kind: str
    since: float
    uid: int
    first: float
    person: int


class Arriving:
    """The files that arrive, by name. ``person`` returns the person behind a uid."""

    def __init__(self, clock: Clock, person: Callable[[int], int], settle: float, upload: float) -> None:
        self.settle, self.upload = settle, upload  # seconds
        self._clock = clock
        self.person = person
        self._files: dict[str, Unfinished] = {}
        self._counts: Counter[int] = Counter()  # by person

    def __bool__(self) -> bool:
        """Tell whether anything arrives."""
        return bool(self._files)

    def names(self) -> list[str]:
        """Return the names of all files that are remembered."""
        return list(self._files)

    def is_unchanged(self, name: str, path: str) -> bool:
        """Tell whether a file that did not parse is unchanged and may still become whole. Then it is not read again.

        A lease may end without a change of the file. So a file on which there was a lease is always looked at.
        """
        seen = self._files.get(name)
        if seen is None or seen.kind == strangers.LEASED:
            return False
        return seen.identity == attributes.identity(path) and not self._has_waited(seen)

    def is_settled(self, name: str, dropped: Dropped) -> bool:
        """Tell whether a file has not changed for the settle time."""
        seen = self._files.get(name)
        if seen is None or (seen.identity, seen.kind) != (dropped.identity, dropped.kind):
            self._note(name, dropped, seen if seen and seen.uid == dropped.uid else None)
            return False
        return self._has_waited(seen)

    def is_overdue(self, name: str) -> bool:
        """Tell whether one user has kept a name from everybody else for too long, whatever changed."""
        seen = self._files.get(name)
        return seen is not None and self._clock.monotonic() - seen.first >= self.upload

    def has_lain(self, name: str, dropped: Dropped) -> bool:
        """Tell whether a file has been there for the settle time, however often it was written to."""
        seen = self._files.get(name)
        if seen is None or seen.identity.inode != dropped.identity.inode:
            self._note(name, dropped, None)
            return False
        return self._has_waited(seen)

    def forget(self, name: str) -> None:
        """Forget a file that is gone, or was dealt with."""
        if seen := self._files.pop(name, None):
            self._counts[seen.person] -= 1
            if not self._counts[seen.person]:
                del self._counts[seen.person]

    def _note(self, name: str, dropped: Dropped, before: Unfinished | None) -> None:
        self.forget(name)
        person, now = self.person(dropped.uid), self._clock.monotonic()
        if self._counts[person] < MOST:
            first = before.first if before else now
            self._files[name] = Unfinished(dropped.identity, dropped.kind, now, dropped.uid, first, person)
            self._counts[person] += 1

    def _has_waited(self, seen: Unfinished) -> bool:
        return self._clock.monotonic() - seen.since >= self.settle
