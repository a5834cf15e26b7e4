"""Pools: how many pilots each wants and has, as the scaler notes it for ``spoolctl top``.

Spec: spool-layout.md, "Pilots". The scaler keeps ``tmp/scale.pools``, replaced when it changes, and now and then. It
goes with the scaler. Nothing is decided by it: it is not synced, and a note that cannot be read counts as none.
"""

from __future__ import annotations

import contextlib
import os

import msgspec

from spoold.host import fsops
from spoold.model.ids import Kept, Private
from spoold.model.states import Role

LARGEST = 1 << 20  # bytes of a note
AGAIN = 10.0  # seconds after which it is noted anew, so that its age tells whether the scaler works


class PoolState(msgspec.Struct, frozen=True, kw_only=True):
    """Pilots of one pool, of ``most``: how many are wanted, and how many there are of each kind.

    ``pending`` wait in Slurm's queue; ``starting`` run there, and their executors are not seen yet; ``running`` are
    executors that are there, whatever Slurm says; ``lost`` run by Slurm's list alone.
    """

    pool: str
    most: int
    wanted: int
    pending: int
    starting: int
    running: int
    lost: int


class Pools(msgspec.Struct, frozen=True, kw_only=True):
    """All pools; ``slurm`` tells whether it answered, and ``demand`` how many submissions pilots could work on."""

    slurm: bool
    demand: int
    pools: list[PoolState]


def _path(root: str) -> str:
    return os.path.join(root, "tmp", Role.SCALE + Kept.POOLS)


class Noting:
    """The notes of one scaler, in the spool ``root``."""

    def __init__(self, root: str) -> None:
        self._path = _path(root)
        self._last: Pools | None = None
        self._again = float("-inf")  # on the monotonic clock

    def note(self, pools: Pools, now: float) -> None:
        """Say how it is ``now``, on the monotonic clock; where the host is in the way, the next one tells."""
        if pools == self._last and now < self._again:
            return
        self._last, self._again = pools, now + AGAIN
        with contextlib.suppress(OSError):
            private = self._path + Private.NOTE
            fsops.write_private(private, msgspec.json.encode(pools), sync=False)
            fsops.replace(private, self._path)

    def end(self) -> None:
        """Take it along."""
        with contextlib.suppress(OSError):
            fsops.remove(self._path)


def noted(root: str) -> tuple[Pools, float] | None:
    """Return what the scaler noted last, and when, in seconds since the epoch; None where it noted nothing."""
    path = _path(root)
    with contextlib.suppress(OSError, msgspec.DecodeError):
        mtime, data = fsops.mtime(path), fsops.read(path, LARGEST)
        if mtime is not None and data is not None:
            return msgspec.json.decode(data, type=Pools), mtime
    return None
