"""Anything may happen in any order: each dropped file still gets one answer, and an answer that was seen stays.

Hypothesis chooses the actions of clients, actors, clocks and faults. The invariants are checked after each step, and at
the end, when everything has come to rest. The test is short by default. ``SPOOLD_TEST_LONG=1`` takes some minutes, and
``SPOOLD_TEST_EXAMPLES`` sets the number of runs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path
from unittest import mock

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from spoold.model.errors import OperatorError
from spoold.model.response import FINAL
from spoold.model.states import State
from spoold.upkeep import check as check_module
from spoold.upkeep.check import Check
from spoold.upkeep.repair import repair as carry_out
from spoold.upkeep.requeue import requeue
from tests.crash.operations import Operation, Watcher, by_a_client, watched
from tests.crash.scenarios import MONTH
from tests.crash.world import MEMORY, World, check, check_rest, dropped, one_thread, pass_time, seen

LONG = bool(os.environ.get("SPOOLD_TEST_LONG"))
EXAMPLES = int(os.environ.get("SPOOLD_TEST_EXAMPLES", "1000" if LONG else "25"))
IDS = st.sampled_from(["a", "b", "c"])
ROLES = st.sampled_from(["intake", "executor", "builder", "health"])
EXPRESSIONS = st.sampled_from([None, "# other", "broken"])
ANYTHING = {str(status) for status in FINAL}


class Killed(BaseException):
    """The process is dead."""


class Fault(Watcher):
    """Let ``left`` operations pass. Then the process is dead, or with ``full`` the disk takes nothing more."""

    def __init__(self, left: int, *, full: bool = False) -> None:
        self.left = left
        self.full = full

    def before(self, operation: Operation) -> None:
        self.left -= 1
        if self.left >= 0:
            return
        if not self.full:
            raise Killed  # also for later operations, because a dead process cleans nothing up
        if operation.kind in {"write", "link", "symlink"} or (operation.kind == "open" and operation.is_new):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Spools(RuleBasedStateMachine):
    """One spool, its clients and its actors."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        directory = self.stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY))
        self.stack.enter_context(one_thread())
        self.stack.enter_context(mock.patch.object(check_module, "SECOND_LOOK", 0.0))
        self.world = World.make(Path(directory, "spool"))
        self.visible: dict[str, bytes] = {}
        self.gone: dict[str, bytes] = {}  # answers that were seen, and were removed or taken back
        self.corrupt: set[str] = set()
        self.late = False  # a month has passed, so answers may be removed

    @initialize()
    def begin(self) -> None:
        self.look()

    # -- clients

    @rule(id_=IDS, expression=EXPRESSIONS, inputs=st.sampled_from(["", "x"]))
    def submit(self, id_: str, expression: str | None, inputs: str) -> None:
        # else only the later file would have been dropped
        if not (self.world.root / "incoming" / f"{id_}.json").exists():
            self.world.drop(id_, expression, inputs=inputs)

    @rule(id_=IDS)
    def drop_nonsense(self, id_: str) -> None:
        if not (self.world.root / "incoming" / f"{id_}.json").exists():
            self.world.drop_bytes(id_, b"[")

    @rule(id_=IDS)
    def cancel(self, id_: str) -> None:
        self.world.cancel(id_)

    # -- actors

    @rule(id_=IDS, renewed=st.booleans())
    def cancel_while_the_next_runs(self, id_: str, renewed: bool) -> None:
        """The executor learns of the cancel in the middle of its next job, or too late."""

        def meanwhile() -> None:
            self.world.cancel(id_)
            self.world.intake.step()
            if renewed:
                self.world.executor._slots._heartbeat.beat()

        self.world.sandbox.before_end = meanwhile

    @rule(role=ROLES)
    def step(self, role: str) -> None:
        self.world.step(role)

    @rule(role=ROLES, operations=st.integers(0, 40))
    def crash(self, role: str, operations: int) -> None:
        with watched(str(self.world.root), Fault(operations)), contextlib.suppress(Killed):
            self.world.step(role)
        self.restart()

    @rule()
    def restart(self) -> None:
        self.world = World(self.world.root).start()

    @rule(role=ROLES, operations=st.integers(0, 40))
    def fill_the_disk(self, role: str, operations: int) -> None:
        with watched(str(self.world.root), Fault(operations, full=True)), contextlib.suppress(OSError):
            self.world.step(role)
        self.world.work()

    @rule()
    def stall_an_executor(self) -> None:
        """Another executor claims something and is never heard of again."""
        for entry in self.world.spool.queue.entries(State.NEW)[:1]:
            self.world.spool.queue.claim(entry, State.NEW, State.RUNNING)

    @rule(id_=IDS)
    def come_back_from_a_stall(self, id_: str) -> None:
        """An executor that lost its lease to the current holder tries to commit."""
        place = self.world.spool.queue.locate(id_)
        if place and place[1].attempt > 1:
            late = place[1]._replace(attempt=place[1].attempt - 1)
            with contextlib.suppress(Exception):
                self.world.spool.queue.results.commit(late, State.RUNNING, b"late")

    # -- the operator

    @rule(id_=IDS, operations=st.integers(0, 40))
    def requeue(self, id_: str, operations: int) -> None:
        """The answer is taken back, and the operator's command may be interrupted."""
        name = f"{id_}.response.json"
        if name in self.visible:
            self.gone[name] = self.visible.pop(name)
        with watched(str(self.world.root), Fault(operations)), contextlib.suppress(Killed, OperatorError):
            requeue(self.world.spool, id_)

    @rule()
    def repair(self) -> None:
        check = Check(self.world.settings, "test")
        for found in check.unexplained():
            carry_out(check.spool, found)

    # -- the world around

    @rule()
    def pass_a_month(self) -> None:
        self.late = True
        pass_time(MONTH)

    @rule(seconds=st.sampled_from([-3600.0, -31.0, 1.0, 31.0, 3600.0]))
    def move_the_clock(self, seconds: float) -> None:
        pass_time(seconds)

    @rule(away=st.booleans())
    def lose_the_engine(self, away: bool) -> None:
        self.world.sandbox.away = away

    @rule(id_=IDS)
    def corrupt_an_entry(self, id_: str) -> None:
        place = self.world.spool.queue.locate(id_)
        if place and place[0] != "done":
            self.corrupt.add(id_)
            with by_a_client():
                Path(self.world.spool.queue.entry_path(*place)).write_bytes(b"{")

    # -- what must hold

    @invariant()
    def look(self) -> None:
        """No answer changes, all are whole, none is removed before its time, and no id has two entries."""
        going = {f"{id_}.response.json" for id_ in "abc"} if self.late else ()
        now = seen(self.world.root, going)
        gone = {name: data for name, data in self.visible.items() if name not in now}
        assert self.late or not gone
        self.gone |= gone
        assert {name: now.get(name, data) for name, data in self.visible.items()} == self.visible
        self.visible = now
        entries = [
            entry.id
            for state in (State.NEW, State.BUILDING, State.RUNNING)
            for entry in self.world.spool.queue.entries(state)
        ]
        entries += [name.removesuffix(".json") for name in self.world.names("done") if name not in now]
        assert len(entries) == len(set(entries))

    def teardown(self) -> None:
        try:
            self.world.sandbox.away = False
            pass_time(24 * 3600.0)  # whatever the clock says now
            self.restart()
            self.look()
            self.repair()  # ends a requeue that was interrupted
            self.world.step("health")  # old answers are removed before their ids are used again
            self.look()
            self.world.settle()
            self.look()
            self.check()
        finally:
            self.stack.close()

    def check(self) -> None:
        drops = dropped(self.world.root)
        answered = {name.removesuffix(".response.json") for name in self.visible if name.endswith(".response.json")}
        if self.gone:
            check_rest(self.world)
            answered |= {name.partition(".")[0] for name in self.gone}
        elif not self.corrupt:  # an entry that cannot be read doesn't tell its owner
            check(self.world, self.visible, dict.fromkeys("abc", ANYTHING), drops)
        assert answered >= {drop.id for drop in drops}, self.world.picture()


TestSpools = Spools.TestCase
TestSpools.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=50 if LONG else 25,
    deadline=None,
    derandomize=not LONG,  # a test that fails at random tells nobody what broke it
    phases=[Phase.generate, Phase.shrink] if LONG else [Phase.generate],
    report_multiple_bugs=False,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_an_entry_that_cannot_be_read_is_answered_to_the_owner_that_its_name_tells() -> None:
    state = Spools()
    state.begin()
    state.submit(id_="a", expression=None, inputs="")
    state.step(role="intake")
    state.corrupt_an_entry(id_="a")
    state.step(role="executor")
    try:
        assert "a.response.json" in state.world.names("done")
        state.look()  # checks the owner too
    finally:
        state.stack.close()
