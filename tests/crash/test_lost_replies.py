"""Operations that report an error, whether they were done or not: nothing is lost, nothing answered twice.

When a file server restarts or its answer is lost, the client's kernel asks again. An operation that was done is not
done twice: a rename finds no source, a link finds its name taken, an unlink finds nothing. A soft mount, or a server
that is away, reports EIO or ESTALE for operations that were done and for those that were not. Each of these happens
once for each scenario and each of its operations that changes names. The actors live on, as in the daemons' loop, and
the invariants are checked when they have come to rest. By default, cases that leave the same files are tried once, and
a part of the others, see ``sample.py``.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
from pathlib import Path

import pytest

from spoold.model.errors import SpooldError
from tests.crash.operations import Operation, Watcher, watched
from tests.crash.sample import LONG, Sample, kind_of
from tests.crash.scenarios import CANCELLED, SCENARIOS, Scenario, a_start, a_stop
from tests.crash.test_kill import Recorder, picture
from tests.crash.world import World, begin_anew, check, seen

ASKED_AGAIN = {
    "rename": errno.ENOENT,
    "link": errno.EEXIST,
    "symlink": errno.EEXIST,
    "unlink": errno.ENOENT,
    "mkdir": errno.EEXIST,
}
ENDED = (a_stop, a_start)  # these end the actors
LATER = {"cancelled late": {"a": CANCELLED}}  # a submission that takes longer may be cancelled
FAULTS = ("asked again", "done, EIO", "not done, EIO", *(["done, ESTALE"] if LONG else []))
LENGTHS = (1, 3) if LONG else (1,)  # operations that fail one after the other
TAKEN: set[int] = set()  # of this session, by their hashes: there are too many trees to keep them
KINDS: set[object] = set()  # of operations that failed in this session, and of ways in which they did


class Enduring(World):
    """Actors that go on after a failed step, as in the daemons' loop."""

    def drop_bytes(self, id_: str, data: bytes) -> None:
        """Drop a file after the earlier one was taken. A client that replaces a file has dropped only the last one."""
        for _ in range(max(LENGTHS)):
            if (self.root / "incoming" / f"{id_}.json").exists():
                self.step("intake")
        super().drop_bytes(id_, data)

    def step(self, *roles: str) -> None:
        for role in roles or ("intake", "executor", "builder", "executor", "health"):
            for act in (getattr(self, role).step, self.work):
                try:
                    act()
                except (SpooldError, OSError):
                    continue
        for heartbeat in (self.executor._slots._heartbeat, self.builder._heartbeat):
            heartbeat.beat()  # no thread does this here


class Photographer(Recorder):
    """Record the files before, between and after the operations as well."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.trees = [picture(root)]

    def after(self, operation: Operation) -> None:
        super().after(operation)
        self.trees.append(picture(self.root))


class Fault(Watcher):
    """Let ``length`` operations that change names fail, from the one with this number on."""

    def __init__(self, number: int, fault: str, length: int) -> None:
        self.left = number
        self.fault = fault
        self.length = length

    def before(self, operation: Operation) -> None:
        if self._is_it(operation) and self.fault.startswith("not done"):
            self._fail(operation)

    def after(self, operation: Operation) -> None:
        if self._is_it(operation) and not self.fault.startswith("not done"):
            self._fail(operation)
        self.left -= operation.kind in ASKED_AGAIN

    def _is_it(self, operation: Operation) -> bool:
        return -self.length < self.left <= 0 and operation.kind in ASKED_AGAIN

    def _fail(self, operation: Operation) -> None:
        self.left -= 1
        number = {"asked again": ASKED_AGAIN[operation.kind], "done, ESTALE": errno.ESTALE}.get(self.fault, errno.EIO)
        raise OSError(number, os.strerror(number), operation.path)


def operations(root: Path, scenario: Scenario) -> list[tuple[Operation, bool]]:
    """Return a scenario's operations on names, each with whether the same one was seen before with the same files."""
    world = Enduring.make(root, **scenario.changes)
    scenario.warm(world)
    recorder = Photographer(root)
    with watched(str(root), recorder):
        scenario.run(world)
    found = []
    for operation, tree in zip(recorder.operations, recorder.trees, strict=False):
        if operation.kind in ASKED_AGAIN:
            instant = hash((operation.kind, operation.path, operation.target, tree))
            found.append((operation, instant in TAKEN))
            TAKEN.add(instant)
    return found


def play(root: Path, name: str, number: int, fault: str, length: int) -> None:
    """Run a scenario in which some operations fail, and check the result."""
    scenario = SCENARIOS[name]
    shutil.rmtree(root.parent)
    root.parent.mkdir()
    begin_anew()
    world = Enduring.make(root, **scenario.changes)
    scenario.warm(world)
    # the scenario itself may find that a file does not exist yet
    by_itself = contextlib.suppress(SpooldError, OSError, LookupError)
    with watched(str(root), Fault(number, fault, length)), by_itself:
        scenario.run(world)
    if scenario.run in ENDED:
        world = Enduring(root, **scenario.changes).start()
    visible = {name: data for name, data in seen(root, scenario.anew).items() if name not in scenario.anew}
    scenario.mend(world)
    world.settle()
    check(world, visible, scenario.allowed | LATER.get(name, {}))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_reply_is_lost_at_every_change_of_a_name(root: Path, name: str) -> None:
    sample = Sample(name, KINDS)
    for number, (operation, is_known) in enumerate(operations(root, SCENARIOS[name])):
        for fault, length in itertools.product(FAULTS, LENGTHS if LONG or not is_known else ()):
            if not sample.takes((kind_of(operation), fault)):
                continue
            try:
                play(root, name, number, fault, length)
            except Exception as error:
                raise AssertionError(f"{fault}: {operation}, number {number}, and {length - 1} more") from error
