"""Shares of the CPU, as this engine is asked for them.

On cgroup v1 the engine passes a number on, and a group has 1024 without one. On v2 a group has the weight 100 without
one, and the runtime makes a weight out of the number. Older runtimes do that in one way, and newer ones in another.
Versions do not tell which way it is, since distributions change their packages. So a container on trial is asked for
half a share, and says which weight it got.
"""

from __future__ import annotations

from typing import NamedTuple

HALF = 50  # the weight on version 2


class Shares(NamedTuple):
    """The numbers that stand for the share that a container has by default, and for half of that."""

    full: int
    half: int


VERSION_1 = Shares(1024, 512)
# The weight is 10 ** ((l * l + 125 * l) / 612 - 7 / 34), rounded up, where l is the number's logarithm to base 2.
VERSION_2 = Shares(1024, 418)
OLDER_VERSION_2 = Shares(2610, 1300)  # the weight is 1 + (number - 2) * 9999 / 262142, rounded down
