"""How long finished submissions are kept: by age, by number and by size, the oldest first.

Spec: spool-layout.md, "Retention". Pure: a sweep counts, this says up to which time all goes, the sweep removes.
"""

from __future__ import annotations

import msgspec

GRAIN = 60  # seconds that are counted as one: a million submissions need no more memory than the minutes they span


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stays in ``done/``: for ``max_age`` seconds, at most ``max_count`` answers, at most ``max_size`` bytes.

    0 switches a rule off. Whatever they say, an answer stays for ``min_age`` seconds, so that it can be fetched.
    ``quarantine_age`` is the ``max_age`` of quarantine/, to which the other rules apply as well. Every ``interval``
    seconds it is looked at what is too much; 0: never.

    ``archive`` is a command that gets the names of files in its working directory, one a line on standard input,
    before they are removed; where it fails, or takes more than ``archive_timeout`` seconds, they stay.
    """

    max_age: float = 30 * 86400.0
    max_count: int = 1_000_000
    max_size: int = 16 * 1024**3
    min_age: float = 3600.0
    quarantine_age: float = 90 * 86400.0
    interval: float = 600.0
    archive: list[str] = []
    archive_timeout: float = 300.0


class Census:
    """How many there are of each minute, and how large they are together."""

    def __init__(self) -> None:
        self._count: dict[int, int] = {}
        self._size: dict[int, int] = {}

    def add(self, time: float, size: int) -> None:
        """Count one that ended at ``time`` (seconds on the file system's clock) and has ``size`` bytes."""
        minute = int(time // GRAIN)
        self._count[minute] = self._count.get(minute, 0) + 1
        self._size[minute] = self._size.get(minute, 0) + size

    def cutoff(self, rules: Rules, max_age: float, now: float) -> float:
        """Return the time before which everything goes."""
        latest = now - max_age if max_age else 0.0
        count = size = 0
        for minute in sorted(self._count, reverse=True):
            count += self._count[minute]
            size += self._size[minute]
            if (rules.max_count and count > rules.max_count) or (rules.max_size and size > rules.max_size):
                latest = max(latest, (minute + 1) * GRAIN)
                break
        return min(latest, now - rules.min_age)
