"""Uploads that take their time: longer than the settle time in all, and no pause of theirs is as long."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from tests.waiting import until


class Slow(NamedTuple):
    """An upload that takes longer than the settle time, with pauses that are much shorter; all in seconds."""

    settle: float = 2.0
    pause: float = 0.25
    parts: int = 10


SLOW = Slow()
Write = Callable[[bytes, int], object]


def slowly(data: bytes, write: Write, has_come: Callable[[int], bool]) -> float:
    """Upload in parts: ``write`` writes one at its offset, ``has_come`` tells whether so many bytes lie there.

    Return for how many seconds the upload rested at most. Where the machine stood still, that is more than it should.
    """
    size, longest, began = len(data) // SLOW.parts + 1, 0.0, math.inf
    for offset in range(0, len(data), size):
        time.sleep(SLOW.pause if offset else 0.0)  # the rest of a slow upload, which is what is tried
        part, before, began = data[offset : offset + size], began, time.monotonic()
        write(part, offset)
        until(partial(has_come, offset + len(part)))
        longest = max(longest, time.monotonic() - before)
    return longest
