"""Control groups of a test's own, below ours in each tree, so that two runs on one machine don't meet in one."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from spoold.host import cgroups
from tests.waiting import until

NUMBERS = itertools.count(1)
CORES = ("cpuset.cpus", "cpuset.mems")  # version 1 leaves them empty in a new group, which then takes no process


class OwnGroups:
    """A group of one name in each tree of version 1, or one group on version 2."""

    def __init__(self) -> None:
        name = f"spoold-test-{os.getpid()}-{next(NUMBERS)}"
        above = [cgroups.MOUNT] if cgroups.delegable() else list(dict.fromkeys(cgroups.trees("").values()))
        self.places = [place / name for place in above]
        for place in self.places:
            make(place)

    def enter(self) -> None:
        """Put the process that calls this into all of them."""
        for place in self.places:
            (place / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        """Remove them, and the groups below, once the last process has left."""
        for place in self.places:
            until(lambda place=place: _is_removed(place), lambda place=place: f"{place} holds processes")  # type: ignore[misc] # mypy cannot infer it


def make(place: Path) -> None:
    """Make a group that takes processes as the one above it does."""
    place.mkdir()
    for name in CORES:
        if (place / name).exists() and not cgroups.delegable():
            (place / name).write_text((place.parent / name).read_text())


def _is_removed(place: Path) -> bool:
    for each in (*sorted(filter(Path.is_dir, place.rglob("*")), reverse=True), place):
        with contextlib.suppress(OSError):
            each.rmdir()
    return not place.exists()


@contextlib.contextmanager
def own_groups() -> Iterator[OwnGroups]:
    """Have them in the block."""
    made = OwnGroups()
    try:
        yield made
    finally:
        made.remove()
