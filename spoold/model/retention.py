"""How long finished submissions are kept: by age, by number and by size, the oldest first.

Spec: spool-layout.md, "Retention". Pure: a sweep counts, this says up to which time all goes, the sweep removes.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from spoold.model.setting import setting

GRAIN = 60  # seconds that are counted as one: a million submissions need no more memory than the minutes they span


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long what is finished is kept: what goes of ``done/``, the oldest first. 0 switches a rule off."""

    max_age: Annotated[float, setting("what is older goes", "seconds", ge=0)] = 30 * 86400.0
    max_count: Annotated[int, setting("so many answers stay at the most", ge=0)] = 1_000_000
    max_size: Annotated[int, setting("so much stays at the most", "bytes", ge=0)] = 16 * 1024**3
    min_age: Annotated[
        float, setting("whatever the others say, an answer stays for so long, to be fetched", "seconds", ge=0)
    ] = 3600.0
    quarantine_age: Annotated[
        float, setting("the max_age of quarantine/, to which the other rules apply as well", "seconds", ge=0)
    ] = 90 * 86400.0
    interval: Annotated[float, setting("how often it is looked; 0: never", "seconds", ge=0)] = 600.0
    archive: Annotated[
        list[str],
        setting(
            "a command that gets the names of files in its working directory, one a line on standard input, before "
            "they are removed; where it fails they stay"
        ),
    ] = []
    archive_timeout: Annotated[float, setting("how long it may take, else it failed", "seconds", gt=0)] = 300.0


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

    @property
    def count(self) -> int:
        """Return how many there are."""
        return sum(self._count.values())

    @property
    def size(self) -> int:
        """Return how many bytes they have together."""
        return sum(self._size.values())

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
