"""Any actor is killed at any file operation: nothing is lost, nothing is answered twice, nothing is stuck.

For each scenario, each of its operations and each instant (before it, after it, in the middle of a write), a process of
its own is ended by ``os._exit``. Then all actors are started again, and the invariants are checked when they have come
to rest. By default, instants that leave the same files are tried once. ``SPOOLD_TEST_LONG=1`` tries all.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold.spool.layout import TRANSITIONS
from tests.crash.operations import Operation, Watcher, watched
from tests.crash.scenarios import SCENARIOS, Scenario
from tests.crash.world import World, begin_anew, check, pass_time, passed, seen

LONG = bool(os.environ.get("SPOOLD_TEST_LONG"))
DIED, ENDED = 77, 78  # exit codes of a process that was ended in the middle, and of one that reached the end
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Recorder(Watcher):
    """Record all operations, and the files before, between and after them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.operations: list[Operation] = []
        self.trees = [picture(root)]
        self.seconds = 0.0  # seconds that passed

    def after(self, operation: Operation) -> None:
        self.operations.append(operation)
        self.trees.append(picture(self.root))


class Killer(Watcher):
    """End the process at the operation with this number: ``before`` it, ``after`` it, or ``amid`` a write."""

    def __init__(self, root: Path, number: int, instant: str) -> None:
        self.root = root
        self.left = number
        self.instant = instant

    def before(self, operation: Operation) -> None:
        if self.left == 0 and self.instant == "before":
            os._exit(DIED)
        if self.left == 0 and self.instant == "amid":
            (self.root / operation.path).write_bytes(operation.data[: len(operation.data) // 2])
            os._exit(DIED)

    def after(self, operation: Operation) -> None:  # noqa: ARG002 - any operation counts
        if self.left == 0 and self.instant == "after":
            os._exit(DIED)
        self.left -= 1


def recorded(root: Path, scenario: Scenario) -> Recorder:
    """Return the operations of a scenario in which nobody is killed."""
    world = World.make(root, **scenario.changes)
    scenario.warm(world)
    recorder = Recorder(root)
    with watched(str(root), recorder):
        scenario.run(world)
    recorder.seconds = passed()
    world.settle()
    return recorder


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_scenario_itself_comes_to_its_end(root: Path, name: str) -> None:
    scenario = SCENARIOS[name]
    recorded(root, scenario)
    world = World(root, **scenario.changes).start()
    world.settle()
    check(world, seen(root, scenario.anew), scenario.allowed)


def instants(recorder: Recorder) -> Iterator[tuple[int, str]]:
    """Return each operation's number with the instants to die: before, amid and after it.

    All that remains is on disk. So instants with the same files are equivalent, and by default one of them is tried.
    """
    for number, (operation, before, after) in enumerate(
        zip(recorder.operations, recorder.trees, recorder.trees[1:], strict=False)
    ):
        if LONG or _is_first(before):
            yield number, "before"
        if LONG or _is_first(after):
            yield number, "after"
        if operation.kind == "write" and len(operation.data) > 1 and (LONG or _is_first((before, "half"))):
            yield number, "amid"


TAKEN: set[object] = set()  # in this session


def _is_first(tree: object) -> bool:
    is_first = tree not in TAKEN
    TAKEN.add(tree)
    return is_first


def picture(root: Path) -> frozenset[tuple[str, int, int]]:
    """Return the files with their sizes, and which share an inode. Files that no decision reads are left out."""
    found = [(path, path.lstat()) for path in root.rglob("*") if not path.match("progress/*")]
    numbers: dict[int, int] = {}
    files = [(str(path.relative_to(root)), stat) for path, stat in sorted(found) if not path.is_dir()]
    return frozenset((name, stat.st_size, numbers.setdefault(stat.st_ino, len(numbers))) for name, stat in files)


def killed(root: Path, scenario: Scenario, number: int, instant: str) -> bool:
    """Run a scenario in a process that dies at an operation. Tell whether it got that far."""
    child = os.fork()
    if child == 0:
        try:
            world = World.make(root, **scenario.changes)
            scenario.warm(world)
            with watched(str(root), Killer(root, number, instant)):
                scenario.run(world)
            os._exit(ENDED)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in {DIED, ENDED}
    return code == DIED


def test_a_machine_that_stalls_does_the_same_operations(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that takes time renews its lease once more.

    Here none does, because numbers of operations must be stable.
    """
    scenario = SCENARIOS["many"]
    before = [each.kind for each in recorded(root, scenario).operations]
    monkeypatch.setattr("spoold.spool.queue.SLOW", 0.0)
    assert [each.kind for each in recorded(root.with_name("again"), scenario).operations] == before


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_at_every_operation(root: Path, name: str) -> None:
    scenario = SCENARIOS[name]
    recorder = recorded(root, scenario)
    for number, instant in instants(recorder):
        shutil.rmtree(root.parent)
        root.parent.mkdir()
        begin_anew()
        assert killed(root, scenario, number, instant), "the operations are the same each time"
        pass_time(recorder.seconds)
        try:
            visible = {name: data for name, data in seen(root, scenario.anew).items() if name not in scenario.anew}
            world = World(root, **scenario.changes).start()
            scenario.mend(world)
            world.settle()
            check(world, visible, scenario.allowed)
        except Exception as error:
            raise AssertionError(f"killed {instant} operation {number}: {recorder.operations[number]}") from error


def test_every_transition_is_taken(root: Path) -> None:
    """Scenarios must cover the state table, so a new transition needs a scenario."""
    taken = set()
    for number, scenario in enumerate(SCENARIOS.values()):
        place = root.with_name(str(number))
        for operation in recorded(place, scenario).operations:
            to = f" to {operation.target}" if operation.target else ""
            taken.add(f"{operation.kind} {operation.path}{to}".replace("unlink", "remove"))
    for transition in TRANSITIONS:
        pattern = re.escape(transition.step.replace("`", ""))
        for word, meaning in (
            ("<uid>", "[0-9]+"),
            ("<id>", "[^/@]+"),
            ("<random>", "[0-9a-f]{8}"),
            ("<n+1>", "[2-9]"),
            ("<n>", "[0-9]+"),
            ("<m>", "[2-9]"),
        ):
            pattern = pattern.replace(re.escape(word), meaning)
        assert any(re.fullmatch(pattern, each) for each in taken), f"no scenario takes: {transition.step}"
