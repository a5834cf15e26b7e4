"""Any actor is killed at any file operation: nothing is lost, nothing is answered twice, nothing is stuck.

For each scenario, each operation of it and each instant (before it, after it, in the middle of a write) the spool is
copied as it is then. Later all actors are started on each copy, and the invariants are checked when they have come to
rest. A process that is really ended by ``os._exit`` at such an instant leaves the same: that is a test of its own.
By default instants that leave the same files are taken once, a part of the others is (see ``sample.py``), and few
processes are ended. ``SPOOLD_TEST_LONG=1`` takes all.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from spoold.spool.layout import TRANSITIONS
from tests.crash.operations import Operation, Watcher, watched
from tests.crash.sample import LONG, Sample, kind_of
from tests.crash.scenarios import SCENARIOS, Scenario
from tests.crash.world import MEMORY, World, begin_anew, check, move_times, pass_time, passed, seen

DIED, ENDED = 77, 78  # exit codes of a process that was ended on its way, and of one that came to the end
ENDED_FOR_REAL = 1 if LONG else 60  # of so many instants, one
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Recorder(Watcher):
    """Record all operations."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def after(self, operation: Operation) -> None:
        self.operations.append(operation)


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
    recorder = Recorder()
    with watched(str(root), recorder):
        scenario.run(world)
    world.settle()
    return recorder


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_scenario_itself_comes_to_its_end(root: Path, name: str) -> None:
    scenario = SCENARIOS[name]
    recorded(root, scenario)
    world = World(root, **scenario.changes).start()
    world.settle()
    check(world, seen(root, scenario.anew), scenario.allowed)


class Instant(NamedTuple):
    """When an actor dies: ``before``, ``after`` or ``amid`` an operation. ``copy`` has the spool and the ledger."""

    number: int
    when: str
    copy: Path


class Copier(Watcher):
    """Copies the spool, and what is beside it, at each instant that is to be taken.

    All that remains is on disk. So instants with the same files are equivalent, and by default one of them is tried.
    """

    def __init__(self, root: Path, into: Path, sample: Sample) -> None:
        self.root = root
        self.into = into
        self.sample = sample
        self.operations: list[Operation] = []
        self.instants: list[Instant] = []
        self.tree = picture(root)

    def before(self, operation: Operation) -> None:
        if self._is_taken("before", operation, self.tree):
            self._copy("before")
        if operation.kind == "write" and len(operation.data) > 1:
            if not self._is_taken("amid", operation, (self.tree, "half")):
                return
            written = self._copy("amid") / self.root.name / operation.path
            written.write_bytes(operation.data[: len(operation.data) // 2])

    def after(self, operation: Operation) -> None:
        self.tree = picture(self.root)
        if self._is_taken("after", operation, self.tree):
            self._copy("after")
        self.operations.append(operation)

    def _is_taken(self, when: str, operation: Operation, tree: object) -> bool:
        return LONG or (_is_first(tree) and self.sample.takes((when, kind_of(operation))))

    def _copy(self, when: str) -> Path:
        copy = self.into / str(len(self.instants))
        subprocess.run(["cp", "-a", self.root.parent, copy], check=True)
        self.instants.append(Instant(len(self.operations), when, copy))
        return copy


def copied(root: Path, into: Path, scenario: Scenario, sample: Sample) -> Copier:
    """Return the instants of a scenario, in which nobody is killed."""
    world = World.make(root, **scenario.changes)
    scenario.warm(world)
    copier = Copier(root, into, sample)
    with watched(str(root), copier):
        scenario.run(world)
    return copier


TAKEN: set[int] = set()  # of this session, by their hashes: there are too many trees to keep them
KINDS: set[object] = set()  # of operations at which an actor died in this session


def _is_first(tree: object) -> bool:
    is_first = hash(tree) not in TAKEN
    TAKEN.add(hash(tree))
    return is_first


@pytest.fixture
def into() -> Iterator[Path]:
    """Yield a directory for copies."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        yield Path(directory)


def picture(root: Path) -> frozenset[tuple[str, int, int]]:
    """Return the files with their sizes, and which share an inode. Files that no decision reads are left out."""
    found: list[tuple[str, os.stat_result]] = []
    todo, above = [str(root)], len(f"{root}/")
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                elif not entry.is_dir():
                    found.append((entry.path[above:], entry.stat(follow_symlinks=False)))
    numbers: dict[int, int] = {}
    files = [(name, stat) for name, stat in sorted(found) if not name.startswith("progress/")]
    return frozenset((name, stat.st_size, numbers.setdefault(stat.st_ino, len(numbers))) for name, stat in files)


def outline(root: Path) -> list[tuple[list[str], bool]]:
    """Return a picture without what is another each time: random words in names, and lengths of times in files.

    Each item is the names of one file, and whether it is empty.
    """
    files: dict[tuple[int, bool], list[str]] = {}
    for path in root.rglob("*"):
        if not path.is_dir() and not path.match("progress/*"):
            name = re.sub(r"\b([0-9a-f]{16}|[0-9a-f]{8}|(?<=doctor-)[0-9]+)\b", "random", str(path.relative_to(root)))
            files.setdefault((path.lstat().st_ino, path.lstat().st_size == 0), []).append(name)
    return sorted((sorted(names), is_empty) for (_, is_empty), names in files.items())


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
def test_a_kill_at_every_operation(root: Path, into: Path, name: str) -> None:
    scenario = SCENARIOS[name]
    copier = copied(root, into, scenario, Sample(name, KINDS))
    seconds = passed()
    for number, when, copy in copier.instants:
        shutil.rmtree(root.parent)
        copy.rename(root.parent)
        move_times(root, begin_anew())
        pass_time(seconds)
        try:
            visible = {name: data for name, data in seen(root, scenario.anew).items() if name not in scenario.anew}
            world = World(root, **scenario.changes).start()
            scenario.mend(world)
            world.settle()
            check(world, visible, scenario.allowed)
        except Exception as error:
            raise AssertionError(f"killed {when} operation {number}: {copier.operations[number]}") from error


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_process_that_is_killed_leaves_what_was_copied(root: Path, into: Path, name: str) -> None:
    scenario = SCENARIOS[name]
    TAKEN.clear()
    copier = copied(root, into, scenario, Sample(name, every=ENDED_FOR_REAL))
    for number, when, copy in copier.instants:
        shutil.rmtree(root.parent)
        root.parent.mkdir()
        begin_anew()
        assert killed(root, scenario, number, when), "the operations are the same each time"
        assert outline(root) == outline(copy / root.name), f"{when} operation {number}: {copier.operations[number]}"


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
