"""The power fails at any time, and unsynced changes are lost: no accepted submission vanishes, no response is short.

The operations of each scenario are recorded once. For each prefix of them, up to ``LOST`` of the operations that are
not synced yet are chosen, to be lost or to be the only ones that survive. For each choice the tree is made that a disk
may then hold, all actors are started on it, and the invariants are checked when they have come to rest. Trees that no
decision can tell apart are tried once. By default a part of the others is tried, see ``sample.py``.
``SPOOLD_TEST_LONG=1`` takes all, and ``SPOOLD_TEST_LOST=2`` goes deeper.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.crash.disk import Disk, Power, key, look, make
from tests.crash.operations import Operation, Watcher, watched
from tests.crash.sample import LONG, Sample, kind_of
from tests.crash.scenarios import SCENARIOS, Scenario
from tests.crash.world import Drop, World, begin_anew, check, dropped, seen

LOST = int(os.environ.get("SPOOLD_TEST_LOST", "2" if LONG else "1"))
UNREAD = (
    "progress/",
    ".progress.json",
    ".probe",
    "health.count",
    "health.count.private.json",
)  # no decision reads these
TAKEN: set[int] = set()  # of this session, by their hashes: the trees would take a gigabyte
KINDS: set[object] = set()  # of operations after which the power failed, in this session


class Step(NamedTuple):
    """An operation, and the clients' drops and views at its end."""

    operation: Operation
    drops: list[Drop]
    visible: dict[str, bytes]


class Recorder(Watcher):
    """Record all operations, including the clients' drops. It gives each file a number that is never used again."""

    def __init__(self, root: Path, going: tuple[str, ...]) -> None:
        self.root = root
        self.going = going
        self.disk = Disk(root)
        self.inodes: dict[int, int] = {}
        self.visible = seen(root, going)
        self.steps: list[Step] = []

    def after(self, operation: Operation) -> None:
        if operation.kind in {"open", "symlink"} and operation.is_new:
            self._number(operation.inode)
        if operation.kind in {"link", "rename"} and operation.target.startswith("done/"):
            self.visible = seen(self.root, self.going)
        self._remember(operation._replace(inode=self.inodes.get(operation.inode, operation.inode)))

    def dropped(self, path: str) -> None:
        file = self.root / path
        self._remember(Operation("drop", path, inode=self._number(file.lstat().st_ino), data=look(file)))

    def _number(self, inode: int) -> int:
        self.inodes[inode] = (1 << 62) + len(self.steps)
        return self.inodes[inode]

    def _remember(self, operation: Operation) -> None:
        self.steps.append(Step(operation, dropped(self.root), self.visible))


def recorded(root: Path, scenario: Scenario) -> Recorder:
    world = World.make(root, **scenario.changes)
    scenario.warm(world)
    recorder = Recorder(root, scenario.anew)
    with watched(str(root), recorder):
        scenario.run(world)
    return recorder


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_power_fails_after_every_operation(root: Path, name: str) -> None:
    scenario = SCENARIOS[name]
    recorder = recorded(root, scenario)
    power, sample = Power(recorder.disk), Sample(name, KINDS)
    for number, step in enumerate(recorder.steps):
        power.add(number, step.operation)
        for gone, tree, files in power.outcomes(LOST):
            state = hash((key(tree, files, UNREAD), len(step.drops), len(step.visible)))
            if state in TAKEN:
                continue
            TAKEN.add(state)
            if not sample.takes((kind_of(step.operation), bool(gone))):
                continue
            make(root, recorder.disk, tree, files)
            begin_anew()
            try:
                visible = seen(root, scenario.anew)
                assert {name: step.visible.get(name, data) for name, data in visible.items()} == visible
                world = World(root, **scenario.changes).start()
                scenario.mend(world)
                world.settle()
                kept = {name: data for name, data in step.visible.items() if name not in scenario.anew}
                check(world, kept, scenario.allowed, step.drops)
            except Exception as error:
                lost = "\n".join(f"  {change.number}: {change.operation}{' (half)' * change.half}" for change in gone)
                raise AssertionError(f"the power fails after {number}: {step.operation}; lost:\n{lost}") from error
