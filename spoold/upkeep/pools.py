"""Pools: how many pilots each pool wants and has, as the scaler notes it for ``spoolctl top``.

Spec: spool-layout.md, "Pilots". The scaler keeps ``tmp/scale.pools``. It replaces that file when something changes, and
otherwise from time to time, and removes it when it ends. Nothing is decided by it. So it is not synced, and a note that
cannot be read counts as none.
"""

from __future__ import annotations

import contextlib
import os

import msgspec

from spoold.host import fsops
from spoold.model.ids import Kept, Private
from spoold.model.states import Role

LARGEST = 1 << 20  # bytes of a note
AGAIN = 10.0  # seconds after which the same note is written anew, so that its age tells whether the scaler works


class PoolState(msgspec.Struct, frozen=True, kw_only=True):
    """The pilots of one pool of at most ``most``: how many are wanted, and how many there are of each kind.

    ``pending`` ones wait in Slurm's queue. ``starting`` ones run there, but their executors are not seen yet.
    ``running`` ones are executors that are there, whatever Slurm says. ``lost`` ones run only by Slurm's list.
    """

    pool: str
    most: int
    wanted: int
    pending: int
    starting: int
    running: int
    lost: int


class Pools(msgspec.Struct, frozen=True, kw_only=True):
    """All pools. ``slurm`` tells whether Slurm answered, ``demand`` how many submissions pilots could work on."""

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
        """Note the pools at ``now``, on the monotonic clock. If this note cannot be written, the next one tells it."""
        if pools == self._last and now < self._again:
            return
        self._last, self._again = pools, now + AGAIN
        with contextlib.suppress(OSError):
            private = self._path + Private.NOTE
            fsops.write_private(private, msgspec.json.encode(pools), sync=False)
            fsops.replace(private, self._path)

    def end(self) -> None:
        """Remove the note."""
        with contextlib.suppress(OSError):
            fsops.remove(self._path)


def noted(root: str) -> tuple[Pools, float] | None:
    """Return the scaler's last note, and its time in seconds since the epoch. None where there is no note."""
    path = _path(root)
    with contextlib.suppress(OSError, msgspec.DecodeError):
        mtime, data = fsops.mtime(path), fsops.read(path, LARGEST)
        if mtime is not None and data is not None:
            return msgspec.json.decode(data, type=Pools), mtime
    return None
