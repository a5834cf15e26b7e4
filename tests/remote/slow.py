"""Slow uploads: they take longer than the settle time, but no pause of theirs does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from tests.waiting import until


class Slow(NamedTuple):
    """An upload that takes longer than the settle time, with pauses that are much shorter. All values are seconds."""

    settle: float = 2.0
    pause: float = 0.25
    parts: int = 10


SLOW = Slow()
Write = Callable[[bytes, int], object]


def slowly(data: bytes, write: Write, has_come: Callable[[int], bool]) -> float:
    """Upload in parts. ``write`` writes one at its offset, ``has_come`` tells whether that many bytes lie there.

    Return the longest pause in seconds. It is longer than planned if the machine stood still.
    """
    size, longest, began = len(data) // SLOW.parts + 1, 0.0, math.inf
    for offset in range(0, len(data), size):
        time.sleep(SLOW.pause if offset else 0.0)  # the pause of a slow upload, which is what the test tries
        part, before, began = data[offset : offset + size], began, time.monotonic()
        write(part, offset)
        until(partial(has_come, offset + len(part)))
        longest = max(longest, time.monotonic() - before)
    return longest
