"""Jobs that run at once never ask for more memory together than there is for them, and none waits for it for ever."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from spoold.actors.executor import admission
from spoold.actors.executor.admission import Admission, fitted
from spoold.config import ExecutorSettings, Settings
from spoold.host import machine
from spoold.model.limits import BESIDE, GIB, MIB, Limits, for_jobs, within
from spoold.sandbox import RunCancelledError, walls
from tests.actors.bench import PATIENCE, Bench, settings_for
from tests.names import named
from tests.sandbox.conftest import RUN, make_job

ONE, OTHER, THIRD = 1001, 1002, 1003


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Jobs:
    """Jobs that ask to be let in, each in a thread of its own, and run until they are told to end."""

    def __init__(self, memory: int) -> None:
        self.admission = Admission(memory)
        self.began: list[str] = []
        self._ends: dict[str, threading.Event] = {}
        self._stops: dict[str, threading.Event] = {}
        self._threads: dict[str, threading.Thread] = {}

    def ask(self, name: str, owner: int, size: int) -> None:
        """Have a job ask; come back when it waits or runs."""
        known = len(self.began) + self.admission.waiting
        self._ends[name], self._stops[name] = threading.Event(), threading.Event()
        self._threads[name] = threading.Thread(target=self._run, args=(name, owner, size), daemon=True)
        self._threads[name].start()
        until(lambda: len(self.began) + self.admission.waiting > known)

    def _run(self, name: str, owner: int, size: int) -> None:
        try:
            with self.admission.holding(owner, size, self._stops[name]):
                self.began.append(name)
                self._ends[name].wait()
        except RunCancelledError:
            pass

    def end(self, name: str) -> None:
        self._ends[name].set()
        self._threads[name].join(PATIENCE)

    def cancel(self, name: str) -> None:
        self._stops[name].set()
        self._threads[name].join(PATIENCE)

    def expect(self, names: str, *, waiting: int) -> None:
        """Expect that these have begun, in this order, and so many wait."""
        until(lambda: len(self.began) + self.admission.waiting == len(names.split()) + waiting)
        assert (self.began, self.admission.waiting) == (names.split(), waiting)


def test_together_they_never_have_more_than_there_is() -> None:
    jobs = Jobs(10)
    for name in ("a", "b", "c"):
        jobs.ask(name, ONE, 4)
    jobs.expect("a b", waiting=1)
    jobs.end("a")
    jobs.expect("a b c", waiting=0)


def test_a_job_that_asks_for_more_than_there_is_runs_alone() -> None:
    jobs = Jobs(10)
    jobs.ask("small", ONE, 1)
    jobs.ask("big", OTHER, 100)
    jobs.ask("later", ONE, 1)
    jobs.expect("small", waiting=2)
    jobs.end("small")
    jobs.expect("small big", waiting=1)
    jobs.end("big")
    jobs.expect("small big later", waiting=0)


def test_a_big_job_is_not_kept_waiting_by_small_ones_that_go_on_coming() -> None:
    jobs = Jobs(10)
    for name in ("s1", "s2"):
        jobs.ask(name, ONE, 3)
    jobs.ask("big", OTHER, 8)
    for name in ("s3", "s4"):
        jobs.ask(name, ONE, 3)
    jobs.expect("s1 s2", waiting=3)
    jobs.end("s1")
    jobs.expect("s1 s2", waiting=3)
    jobs.end("s2")
    jobs.expect("s1 s2 big", waiting=2)


def test_a_big_job_that_waits_for_one_that_takes_for_ever_leaves_others_half_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or two users, one of whom has long jobs running, could keep all others from beginning."""
    monkeypatch.setattr(admission, "HOLD", 0.3)
    jobs = Jobs(10)
    jobs.ask("long", ONE, 6)
    jobs.ask("big", OTHER, 6)
    jobs.ask("small", THIRD, 1)
    until(lambda: "small" in jobs.began)
    assert jobs.began == ["long", "small"]
    jobs.end("long")
    until(lambda: "big" in jobs.began)


def test_one_who_has_a_big_job_running_keeps_nobody_waiting_with_the_next() -> None:
    jobs = Jobs(10)
    for name in ("b1", "b2", "b3"):
        jobs.ask(name, OTHER, 8)
    jobs.ask("s1", ONE, 2)
    jobs.expect("b1 s1", waiting=2)
    jobs.end("s1")
    jobs.ask("s2", ONE, 2)
    jobs.expect("b1 s1 s2", waiting=2)
    jobs.ask("s3", ONE, 3)
    jobs.end("b1")
    jobs.expect("b1 s1 s2 b2", waiting=2)  # the one who was let in last comes last
    jobs.end("b2")
    jobs.expect("b1 s1 s2 b2 s3", waiting=1)
    jobs.ask("s4", ONE, 2)
    jobs.expect("b1 s1 s2 b2 s3", waiting=2)
    jobs.end("s2")
    jobs.end("s3")
    until(lambda: len(jobs.began) == 7)
    assert sorted(jobs.began[5:]) == ["b3", "s4"]


def test_owners_take_turns() -> None:
    jobs = Jobs(10)
    jobs.ask("first", THIRD, 10)
    for name in ("a1", "a2", "a3"):
        jobs.ask(name, ONE, 10)
    for name in ("b1", "b2"):
        jobs.ask(name, OTHER, 10)
    for name in ("first", "a1", "b1", "a2", "b2", "a3"):
        jobs.end(name)
    assert jobs.began == ["first", "a1", "b1", "a2", "b2", "a3"]


def test_one_that_is_cancelled_holds_up_nobody() -> None:
    jobs = Jobs(10)
    jobs.ask("a", ONE, 6)
    jobs.ask("big", OTHER, 10)
    jobs.ask("b", ONE, 4)
    jobs.expect("a", waiting=2)
    jobs.cancel("big")
    jobs.expect("a b", waiting=0)
    jobs.ask("c", ONE, 4)
    jobs.admission.close()
    jobs.expect("a b", waiting=0)


def test_what_there_is_for_jobs() -> None:
    assert [for_jobs(host) for host in (GIB // 2, 2 * GIB, 64 * GIB)] == [
        GIB // 4,
        2 * GIB - 512 * MIB,
        64 * GIB - 64 * GIB // 10,
    ]
    assert fitted(Settings()).executor.memory == for_jobs(machine.memory())
    assert fitted(fitted(Settings())) == fitted(Settings())


def test_no_limit_is_above_what_there_is() -> None:
    limits = within(Limits(), GIB)
    for phase in (limits.compile, limits.run):
        assert phase.maximum.memory == GIB - BESIDE
        assert phase.default.memory <= GIB - BESIDE
    assert limits.run.default == Limits().run.default
    assert within(Limits(), 64 * GIB) == Limits()


def test_what_a_job_asks_for_is_what_its_container_gets() -> None:
    limits = Limits()
    plain = make_job("", shell="", limits=limits.run.default)
    assert walls.asked(limits, plain) == GIB + 24 * MIB  # all that wait have this size
    own = make_job("", shell="", limits=replace(RUN, memory=64 * MIB), stdin=b"x" * (9 * MIB))
    assert walls.asked(limits, own) == (64 + 32) * MIB
    compiled = make_job("", shell="", compile_sh="", limits=limits.run.default)
    assert walls.asked(limits, compiled) == 512 * MIB + 600 * MIB  # its files may be in memory still
    most = make_job("", shell="", limits=limits.run.maximum, stdin=b"x" * (16 * MIB))
    assert walls.asked(limits, most) <= limits.run.maximum.memory + BESIDE


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    settings = settings_for(tmp_path, executor=ExecutorSettings(slots=4, memory=2 * GIB))
    made = Bench(tmp_path, settings)
    yield made
    made.close()


def wants(memory: int) -> dict[str, Any]:
    return {"limits": {"run": {"memory": memory}}}


def test_a_slot_waits_for_memory(bench: Bench) -> None:
    bench.sandbox.gate.clear()
    for name in ("a", "b", "c", "d"):
        bench.drop(name, **wants(900 * MIB))
    admission = bench.executor._slots._admission
    bench.until(lambda: admission.waiting == 2)
    assert len(bench.sandbox.jobs) == 2
    assert len(bench.names("running")) == 4
    bench.sandbox.gate.set()
    bench.wait_for("a", "b", "c", "d")
    assert {bench.response(name)["status"] for name in ("a", "b", "c", "d")} == {"COMPLETED"}


def test_a_wish_above_what_the_host_has_is_cut_to_it(bench: Bench) -> None:
    bench.drop("a", **wants(4 * GIB))
    bench.wait_for("a")
    top = 2 * GIB - BESIDE
    note = f"limits.run.memory: {4 * GIB} is above this host's maximum; {top} was used"
    assert (bench.response("a")["status"], bench.response("a")["notes"]) == ("COMPLETED", [note])
    assert bench.sandbox.jobs[0].run.memory == top


def test_what_waits_for_memory_is_put_back_at_the_end_at_no_attempts_cost(bench: Bench) -> None:
    bench.sandbox.gate.clear()
    for name in ("a", "b", "c"):
        bench.drop(name, **wants(900 * MIB))
    bench.until(lambda: bench.executor._slots._admission.waiting == 1)
    stopping = threading.Thread(target=bench.executor.stop)
    stopping.start()
    until(lambda: len(bench.names("new")) == 1)
    (name,) = bench.names("new")
    assert name in {named(each) for each in "abc"}
    bench.sandbox.gate.set()
    stopping.join(PATIENCE)
    assert len(bench.sandbox.jobs) == 2
    bench.executor = bench.new_executor()
    bench.wait_for("a", "b", "c")


def test_uids_of_one_person_are_one_owner(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or who has a range of them could have a big job keep all others from beginning, by a uid with nothing running."""
    asked: list[int] = []
    monkeypatch.setattr(bench.executor._line, "_person", lambda _: THIRD)
    holding = bench.executor._slots._admission.holding

    def noting(owner: int, size: int, stop: threading.Event) -> contextlib.AbstractContextManager[None]:
        asked.append(owner)
        return holding(owner, size, stop)

    monkeypatch.setattr(bench.executor._slots._admission, "holding", noting)
    bench.drop("a")
    bench.wait_for("a")
    assert asked == [THIRD]
