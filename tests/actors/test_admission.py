"""Jobs that run at once never ask for more memory together than the host has, and none waits for memory for ever."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest
from msgspec.structs import replace

from spoold.actors.executor import ready
from spoold.actors.executor.admission import MARGIN, fitted
from spoold.actors.executor.line import Line
from spoold.actors.executor.ready import Place, Ready, Taken
from spoold.config import ExecutorSettings, Settings
from spoold.host import machine
from spoold.model import timeshare
from spoold.model.ids import Entry, entry_name
from spoold.model.job import Job
from spoold.model.limits import BESIDE, GIB, MIB, Limits, for_jobs, within
from spoold.model.states import State
from spoold.sandbox import sizes
from tests.actors.bench import PATIENCE, Bench, settings_for
from tests.names import named
from tests.sandbox.conftest import RUN, make_job
from tests.standins import PlainSandbox

ONE, OTHER, THIRD = 1001, 1002, 1003
ALL = 1000  # bytes of memory of the host


class Host:
    """Slots and memory. Time passes only when a test says so.

    ``began`` has the jobs in the order in which they began.
    """

    def __init__(self, slots: int, person: Callable[[int], int] = lambda uid: uid) -> None:
        self.now = 1000.0
        self.barred: set[int] = set()  # owners whose share is used up
        # there is room for all, because nothing here finds an entry again
        with mock.patch.object(ready, "MOST", 1_000_000):
            self.line = Line(person, lambda: self.now, lambda each: each not in self.barred, memory=ALL, slots=slots)
        self.idle = slots
        self.began: list[str] = []
        self.served: dict[int, float] = {}  # slot-seconds by owner
        self._jobs: dict[str, tuple[int, float]] = {}
        self._wanted: dict[str, float] = {}
        self._waited: dict[str, float] = {}
        self._running: list[tuple[float, int, str, Taken]] = []

    def want(
        self,
        owner: int,
        names: str,
        size: int,
        seconds: float = 1e9,
        *,
        limit: float | None = None,
        attempt: int = 1,
        priority: int = 0,
    ) -> None:
        """Let jobs wait that take ``size`` bytes and run for ``seconds``.

        Their ``limit`` is that time unless it is given.
        """
        for name in names.split():
            self._jobs[name] = owner, seconds
            self._wanted[name] = self.now
            place = Place(State.NEW, Entry(name, attempt))
            self.line.ready(Ready(place, "build", size, seconds if limit is None else limit), owner, priority)
        self._fill()

    def many(self, owner: int, letter: str, number: int, size: int, seconds: float) -> None:
        self.want(owner, " ".join(f"{letter}{each}" for each in range(number)), size, seconds)

    def end(self, *names: str) -> None:
        """End jobs, all at once."""
        for job in [each for each in self._running if each[2] in names]:
            self._running.remove(job)
            self._end(job[2], job[3])
        heapq.heapify(self._running)
        self._fill()

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while True:
            ends = self._running[0][0] if self._running else until
            self.now = min(until, ends)
            while self._running and self._running[0][0] <= self.now:
                _, _, name, taken = heapq.heappop(self._running)
                self._end(name, taken)
            self._fill()
            if self.now >= until:
                return

    def running(self) -> str:
        return " ".join(sorted(name for _, _, name, _ in self._running))

    def waited(self, name: str) -> float:
        """Return how long a job waited before it began."""
        return self._waited[name]

    def taken(self, name: str) -> Taken:
        return next(taken for _, _, each, taken in self._running if each == name)

    def _fill(self) -> None:
        while self.idle and (taken := self.line._ready.take(self.now)):
            name = taken.place.entry.id
            self.idle -= 1
            self.began.append(name)
            self._waited[name] = self.now - self._wanted[name]
            heapq.heappush(self._running, (self.now + self._jobs[name][1], len(self.began), name, taken))
            assert sum(min(each.size, ALL) for *_, each in self._running) <= ALL

    def _end(self, name: str, taken: Taken) -> None:
        self.line.ended(taken)
        owner = self._jobs[name][0]
        self.served[owner] = self.served.get(owner, 0.0) + self.now - taken.use.began
        self.idle += 1


@pytest.fixture
def host() -> Host:
    """Return four slots on a host with ``ALL`` bytes."""
    return Host(slots=4)


@pytest.fixture
def no_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody be behind by more than the jobs that run, so that the order is easy to predict."""
    monkeypatch.setattr(timeshare, "CREDIT", 0.0)


def test_together_they_never_have_more_than_there_is(host: Host) -> None:
    host.want(ONE, "a b c", 400)
    assert host.running() == "a b"
    host.end("a")
    assert host.running() == "b c"


def test_a_job_that_asks_for_more_than_there_is_runs_alone(host: Host) -> None:
    host.want(ONE, "small", 100)
    host.want(OTHER, "big", 100 * ALL)
    host.want(ONE, "later", 100)
    assert host.running() == "small"
    host.end("small")
    assert host.running() == "big"
    host.end("big")
    assert host.running() == "later"


def test_what_waits_for_memory_takes_no_slot(host: Host) -> None:
    host.want(ONE, "a b c d e", 400)
    host.want(OTHER, "s1 s2 s3", 50)
    assert host.running() == "a b s1 s2"
    host.end("s1")
    assert host.running() == "a b s2 s3"


def test_a_big_job_is_not_kept_waiting_by_small_ones_that_go_on_coming(host: Host) -> None:
    host.want(ONE, "s1 s2", 300)
    host.want(OTHER, "big", 800)
    host.want(ONE, "s3 s4", 300)
    assert host.running() == "s1 s2"
    host.end("s1")
    assert host.running() == "s2"
    host.end("s2")
    assert host.running() == "big"


@pytest.mark.parametrize("accounts", [1, 2, 4])
@pytest.mark.parametrize("slots", [2, 4, 8])
@pytest.mark.parametrize("seconds", [31, 45, 61, 80, 120, 300, 600])
def test_a_big_job_is_not_kept_waiting_by_jobs_of_which_one_always_runs(
    seconds: int, slots: int, accounts: int
) -> None:
    """The small jobs may be of any length, and belong to one owner or to several accounts that take turns."""
    host = Host(slots)
    host.want(1, "s0", 50, seconds)
    host.run(5)
    host.want(OTHER, "big", ALL, 20.0)
    half = seconds / 2
    host.run(half - 5)
    for number in range(1, 20):
        host.want(1 + number % accounts, f"s{number}", 50, seconds)
        host.run(half)
    assert host.waited("big") <= seconds + MARGIN


def test_what_ends_in_time_passes_a_big_job(host: Host) -> None:
    """So slots stay idle no longer than a short job may run."""
    host.want(ONE, "long", 600, 600.0)
    host.want(OTHER, "big", ALL, 20.0)
    for number in range(3000):
        host.want(THIRD, f"s{number}", 50, 1.0, limit=20.0)
    host.run(599)
    assert host.served[THIRD] >= 3 * (600 - 20 - 1)
    host.run(1)
    assert host.running() == "big"


def test_what_fits_beside_a_big_job_passes_it(host: Host) -> None:
    host.want(ONE, "long", 300, 600.0)
    host.want(OTHER, "big", 800)
    host.want(THIRD, "s1 s2 s3", 100)
    assert host.running() == "long s1 s2"
    host.end("long")
    assert host.running() == "big s1 s2"


def test_room_is_kept_for_one_job_at_a_time(host: Host) -> None:
    host.want(ONE, "long", 600)
    host.want(OTHER, "big", 600)
    host.want(1004, "other-big", 700)
    host.want(THIRD, "s", 400)
    assert host.running() == "long s", "it fits beside the first"
    host.end("long")
    assert host.running() == "big s"
    host.want(THIRD, "s2", 400)
    host.end("s")
    assert host.running() == "big", "now it is the other's turn"
    host.end("big")
    assert host.running() == "other-big"


def test_what_takes_longer_than_its_limits_lets_no_more_pass(host: Host) -> None:
    host.want(ONE, "slow", 600, limit=20.0)
    host.want(OTHER, "big", ALL)
    host.run(100)
    host.want(THIRD, "s", 50, 1.0)
    assert host.running() == "slow"
    host.end("slow")
    assert host.running() == "big"


def test_the_wait_for_the_engine_is_no_part_of_the_time(host: Host) -> None:
    host.want(ONE, "a", 600, 600.0, limit=20.0)
    host.want(OTHER, "big", ALL)
    host.run(100)
    host.line.begun(host.taken("a"))
    host.want(THIRD, "s", 50, 1.0)
    assert host.running() == "a", "the later start of a doesn't move the time that was promised to big"
    host.end("a")
    host.end("big")
    assert host.running() == "s"


def test_whoever_gives_up_the_room_that_was_kept_has_used_it(host: Host, no_credit: None) -> None:
    """Otherwise they would be first again and again, each time with a job that lets another's small jobs pass."""
    host.want(THIRD, "long", 300)
    host.want(OTHER, "p1", 800)
    host.want(ONE, "big", ALL)
    host.run(10)
    host.want(OTHER, "p2", 900, priority=1)
    host.want(1004, "s", 100)
    assert host.running() == "long"
    host.end("long")
    assert host.running() == "big"


def test_what_was_tried_does_not_pass_what_was_tried(host: Host) -> None:
    """Jobs with an earlier attempt run one at a time. So the short one would delay the big one and waste its room."""
    host.want(THIRD, "long", 300, 100.0)
    host.want(OTHER, "big", 800, attempt=2)
    host.want(ONE, "short", 50, 1.0, attempt=2)
    assert host.running() == "long"
    host.end("long")
    assert host.running() == "big"


def test_no_room_is_kept_for_one_whose_share_is_used_up(host: Host) -> None:
    host.want(ONE, "long", 300, 100.0)
    host.want(OTHER, "big", ALL)
    host.want(THIRD, "s", 50)
    assert host.running() == "long"
    host.barred.add(OTHER)
    assert host.line.ask_again() == {OTHER}, "slots have to look again"
    host.run(1)
    assert host.running() == "long s"


def test_no_room_is_kept_for_what_is_gone(host: Host) -> None:
    """The job was cancelled, or another executor has it."""
    host.want(ONE, "long", 300, 100.0)
    host.want(OTHER, "big1 big2", ALL)
    host.want(THIRD, "s", 50)
    assert host.running() == "long"
    host.line.keep_present(State.BUILDING, set())
    host.run(1)
    assert host.running() == "long"
    host.line.keep_present(State.NEW, set())
    assert host.line.names(State.NEW) == {entry_name(State.NEW, Entry(name, 1)) for name in ("long", "s")}
    host.run(1)
    assert host.running() == "long s"


def test_one_who_has_a_big_job_running_keeps_nobody_waiting_with_the_next(host: Host) -> None:
    host.want(OTHER, "b1 b2 b3", 800)
    host.want(ONE, "s1", 200)
    assert host.running() == "b1 s1"
    host.end("s1")
    host.want(ONE, "s2", 200)
    assert host.running() == "b1 s2"


def test_a_big_job_that_one_s_own_small_jobs_keep_out_saves_up_no_turns(host: Host) -> None:
    """Otherwise an hour of waiting would give an hour in which nobody else begins."""
    host.many(OTHER, "b", 15_000, 1, 1.0)
    host.want(ONE, "big", ALL, 1.0)
    for number in range(360):
        host.want(ONE, f"s{number}", 1, 10.0, priority=9)
        host.run(9.0)
    many = [f"x{number}" for number in range(5000)]
    host.want(ONE, " ".join(many), 1, 1.0, priority=5)
    before = len(host.began)
    host.run(60.0)
    began = host.began[before:]
    assert sum(name.startswith("b") for name in began) > len(began) / 3, "of two owners who wait, each gets about half"


@pytest.mark.parametrize(("seconds", "running"), [(20, "s1 s2"), (40, "s1")])
def test_who_waited_already_goes_before_a_big_job_until_they_used_as_much(
    host: Host, no_credit: None, seconds: float, running: str
) -> None:
    host.want(OTHER, "first", 100, 50.0)
    host.run(50)
    host.want(ONE, "s1", 400)
    host.want(THIRD, "long", 400, seconds)
    host.want(ONE, "s2", 300)
    host.want(OTHER, "big", 800)
    assert host.running() == "long s1"
    host.run(seconds)
    assert host.running() == running


def test_who_went_before_a_big_job_puts_off_when_that_begins(host: Host, no_credit: None) -> None:
    """The big job's start is put off, so others have as much time to pass it."""
    host.want(OTHER, "first", 100, 50.0)
    host.run(50)
    host.want(ONE, "s1", 400, 40.0)
    host.want(THIRD, "long", 400, 20.0, limit=600.0)
    host.want(ONE, "s2", 300, 300.0)
    host.want(OTHER, "big", 800)
    host.run(45)
    host.want(THIRD, "short", 250, 20.0)
    assert host.running() == "s2 short"


def test_who_comes_later_does_not_keep_a_big_job_waiting(host: Host, no_credit: None) -> None:
    """This holds though the newcomers used less, because several of them could take turns to arrive."""
    host.want(THIRD, "long", 300)
    host.want(OTHER, "first", 100, 50.0)
    host.run(50)
    host.want(OTHER, "big", 800)
    host.want(ONE, "s1 s2", 100)
    assert host.running() == "long s1 s2"
    host.run(20)
    host.want(ONE, "s3", 100)
    assert host.running() == "long s1 s2"
    host.end("long")
    assert host.running() == "big s1 s2"


def test_an_owner_s_own_jobs_do_not_pass_each_other(host: Host) -> None:
    """Otherwise an owner whose small jobs always run would keep their own big job waiting for ever."""
    host.want(ONE, "s1", 300)
    host.want(ONE, "big", 800)
    host.want(ONE, "s2", 300)
    assert host.running() == "s1"
    host.want(ONE, "urgent", 300, priority=1)
    assert host.running() == "s1 urgent"
    host.end("s1", "urgent")
    assert host.running() == "big"


def test_of_one_owner_what_is_fresh_does_not_pass_what_was_tried_again_and_again(host: Host) -> None:
    host.many(ONE, "f", 50, 300, 1.0)
    host.want(ONE, "tried", 800, 1.0, attempt=2)
    host.run(3)
    assert "tried" in host.began


def test_who_used_less_gets_the_memory_that_frees_up(host: Host, no_credit: None) -> None:
    host.want(ONE, "a1 a2", 500)
    host.run(10)
    host.want(ONE, "a3 a4", 500)
    host.want(OTHER, "b1 b2 b3", 500)
    host.end("a1")
    assert host.running() == "a2 b1"
    host.end("a2")
    assert host.running() == "b1 b2"
    host.run(1)
    host.end("b1")
    assert host.running() == "b2 b3"


def test_all_uids_of_a_person_are_one_owner() -> None:
    """Otherwise a uid with nothing running could keep room for its owner's next big job, again and again."""
    host = Host(4, lambda uid: OTHER if uid >= 100_000 else uid)
    host.want(100_000, "b1", 800)
    host.want(100_001, "b2", 800)
    host.want(ONE, "s1 s2", 100)
    assert host.running() == "b1 s1 s2"


@pytest.mark.parametrize("size", [ALL, 100 * ALL, 600])
def test_who_asks_for_all_memory_gets_no_more_of_the_time_than_another(host: Host, size: int) -> None:
    host.many(ONE, "s", 10_000, 50, 1.0)
    host.many(OTHER, "b", 1000, size, 3.0)
    host.run(900)
    assert host.served[ONE] > 0.45 * 4 * 900
    assert host.served[OTHER] > 0.3 * 900, "and the other owner gets their share"


def test_the_slots_that_are_kept_idle_for_a_job_are_its_owner_s(host: Host) -> None:
    """Otherwise big jobs that end at once, one after the other, would take most of the time from others at no cost."""
    lengths = itertools.cycle([1.0, 2.0, 19.0])
    for number in range(3000):
        host.want(ONE, f"s{number}", 50, next(lengths))
    last = ""
    for second in range(1800):
        if not last or (last in host.began and last not in host.running()):
            last = f"b{second}"
            host.want(OTHER, last, ALL, 0.01)
        host.run(1)
    assert host.served[ONE] > 0.5 * 4 * 1800
    used = host.line.usage()
    assert used is not None
    assert used[OTHER] > 0.5 * used[ONE], "OTHER is charged for the time that others had to wait"


def test_who_comes_new_is_measured_by_who_used_least_of_those_who_wait(host: Host) -> None:
    """Otherwise an owner whose small job passes after their big one would put newcomers behind the big one."""
    host.want(OTHER, "whole", ALL, 500.0)
    host.run(500)
    host.many(ONE, "a", 1000, 300, 5.0)
    host.run(1)
    host.want(OTHER, "gap", 50, 1.0)  # passes ONE's next job, which does not fit
    host.run(1)
    assert "gap" in host.began
    host.want(THIRD, "new", 300, 1.0)
    host.run(5)
    assert "new" in host.began


def test_room_is_not_charged_that_nobody_else_could_use(host: Host) -> None:
    host.want(ONE, "a", 600, 20.0)
    host.want(OTHER, "big", 600, 1.0)
    host.want(THIRD, "as-big", 600, 1.0)
    host.run(22)
    used = host.line.usage()
    assert used is not None
    assert used[OTHER] == pytest.approx(1.0 * 4 * 0.6, rel=0.01)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Threads:
    """Slots that are threads. Each holds the job that it took."""

    def __init__(self, slots: int) -> None:
        self.line = Line(memory=ALL, slots=slots)
        self.taken: list[Taken] = []
        self._ends: dict[str, threading.Event] = {}
        self._threads = [threading.Thread(target=self._take, daemon=True) for _ in range(slots)]
        for thread in self._threads:
            thread.start()

    def _take(self) -> None:
        while taken := self.line.take():
            event = self._ends[taken.place.entry.id] = threading.Event()
            self.taken.append(taken)
            event.wait()
            self.line.ended(taken)

    def want(self, owner: int, name: str, size: int) -> None:
        self.line.ready(Ready(Place(State.NEW, Entry(name, 1)), "build", size, 600.0), owner, 0)

    def names(self) -> list[str]:
        return [taken.place.entry.id for taken in self.taken]

    def end(self, name: str) -> None:
        self._ends[name].set()

    def close(self) -> None:
        self.line.close()
        for name in self.names():
            self.end(name)
        for thread in self._threads:
            thread.join(PATIENCE)


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads(4)
    yield made
    made.close()


def test_memory_that_frees_up_is_for_as_many_slots_as_it_is_enough_for(threads: Threads) -> None:
    threads.want(ONE, "big", ALL)
    until(lambda: threads.names() == ["big"])
    for name in "abc":
        threads.want(OTHER, name, 100)
    threads.want(ONE, "d", 100)
    threads.end("big")
    until(lambda: len(threads.taken) == 5)


def test_slots_go_on_when_no_room_is_kept_any_more(threads: Threads) -> None:
    threads.want(ONE, "long", 600)
    until(lambda: threads.names() == ["long"])
    threads.want(OTHER, "big", ALL)
    for name in "abc":
        threads.want(THIRD, name, 100)
    until(lambda: threads.line._ready._room)
    threads.line.keep_present(State.NEW, set())
    until(lambda: len(threads.taken) == 4)


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
    assert sizes.asked(limits, plain) == GIB + 48 * MIB  # every job with the default limits has this size
    own = make_job("", shell="", limits=replace(RUN, memory=64 * MIB), stdin=b"x" * (9 * MIB))
    assert sizes.asked(limits, own) == (64 + 32) * MIB
    compiled = make_job("", shell="", compile_sh="", limits=limits.run.default)
    # all memory that the compilation may have left in use
    assert sizes.asked(limits, compiled) == (512 + 48) * MIB + GIB
    narrow = replace(limits, work_size=256 * MIB)
    assert sizes.asked(narrow, compiled) == (512 + 48 + 3 * 256) * MIB
    most = make_job("", shell="", limits=limits.run.maximum, stdin=b"x" * (16 * MIB))
    assert sizes.asked(limits, most) <= limits.run.maximum.memory + BESIDE
    # no container gets more memory than the host has, whatever both phases may have
    for host in (GIB, 2 * GIB, 8 * GIB):
        fitting = within(limits, host)
        for part in ("default", "maximum"):
            run, compiling = getattr(fitting.run, part), getattr(fitting.compile, part)
            both = make_job("", shell="", compile_sh="", limits=run, compile_limits=compiling)
            assert sizes.asked(fitting, both) <= host


class WatchedSandbox(PlainSandbox):
    """A sandbox that records what each job may take, and what was counted when it began: bytes and the longest time."""

    def __init__(self) -> None:
        super().__init__()
        self.bench: Bench | None = None
        self.counted: list[tuple[int, int]] = []
        self.times: list[tuple[float, float]] = []

    def begin(self, job: Job, cancelled: threading.Event) -> None:
        assert self.bench is not None
        memory = self.bench.executor._line._ready._memory
        self.counted.append((job.memory, memory._size - memory._free))
        self.times.append((job.longest, max(given.seconds for given in memory._given.values())))
        super().begin(job, cancelled)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    settings = settings_for(tmp_path, executor=ExecutorSettings(slots=4, memory=2 * GIB))
    made = Bench(tmp_path, settings)
    made.drop("warm")  # otherwise jobs would wait for their build in building/
    made.wait_for("warm")
    made.sandbox.jobs.clear()
    yield made
    made.close()


def wants(memory: int) -> dict[str, Any]:
    return {"limits": {"run": {"memory": memory}}}


def drop_as(bench: Bench, owner: int, names: str, memory: int) -> None:
    for name in names.split():
        private = bench.root / "incoming" / f".{name}"
        files = [{"name": "run.sh", "content": "echo hi"}]
        private.write_bytes(msgspec.json.encode({"files": files, **wants(memory)}))
        os.chown(private, owner, owner)
        private.rename(private.with_name(f"{name}.json"))
        bench.intake.step()


def test_what_waits_for_memory_stays_in_new_without_a_lease(bench: Bench) -> None:
    bench.sandbox.gate.clear()
    for name in ("a", "b", "c", "d"):
        bench.drop(name, **wants(900 * MIB))
    bench.until(lambda: len(bench.sandbox.jobs) == 2)
    bench.until(lambda: bench.executor._line.length == 2)
    assert len(bench.names("running")) == len(bench.names("new")) == 2
    assert len(bench.sandbox.jobs) == 2
    bench.sandbox.gate.set()
    bench.wait_for("a", "b", "c", "d")
    assert {bench.response(name)["status"] for name in ("a", "b", "c", "d")} == {"COMPLETED"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop files of several users")
def test_one_s_jobs_that_wait_for_memory_take_no_slot_from_another_s(bench: Bench) -> None:
    bench.sandbox.gate.clear()
    drop_as(bench, ONE, "a1 a2 a3 a4", 880 * MIB)
    bench.until(lambda: len(bench.sandbox.jobs) == 2)
    bench.until(lambda: not bench.executor._seen)
    drop_as(bench, OTHER, "b1 b2", 50 * MIB)
    bench.until(lambda: len(bench.sandbox.jobs) == 4)
    assert {job.submission_id for job in bench.sandbox.jobs} == {"a1", "a2", "b1", "b2"}
    assert bench.names("new") == {f"{name}@{ONE}-1.json" for name in ("a3", "a4")}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop files of several users")
def test_uids_of_one_person_take_turns_as_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise an owner of many uids could keep all others from starting, with big jobs of uids that run nothing."""
    monkeypatch.setattr(bench.executor._line, "_person", lambda uid: OTHER if uid >= 100_000 else uid)
    bench.sandbox.gate.clear()
    drop_as(bench, 100_000, "b1", 1500 * MIB)
    bench.until(lambda: len(bench.sandbox.jobs) == 1)
    drop_as(bench, 100_001, "b2", 1500 * MIB)
    bench.until(lambda: bench.executor._line.length == 1)
    drop_as(bench, ONE, "s1 s2", 50 * MIB)
    bench.until(lambda: len(bench.sandbox.jobs) == 3)
    assert {job.submission_id for job in bench.sandbox.jobs} == {"b1", "s1", "s2"}


def test_a_wish_above_what_the_host_has_is_cut_to_it(bench: Bench) -> None:
    bench.drop("a", **wants(4 * GIB))
    bench.wait_for("a")
    top = 2 * GIB - BESIDE
    note = f"limits.run.memory: {4 * GIB} is above this host's maximum; {top} was used"
    assert (bench.response("a")["status"], bench.response("a")["notes"]) == ("COMPLETED", [note])
    assert bench.sandbox.jobs[0].run.memory == top


def test_what_waits_for_memory_waits_on_at_the_end(bench: Bench) -> None:
    bench.sandbox.gate.clear()
    for name in ("a", "b", "c"):
        bench.drop(name, **wants(900 * MIB))
    bench.until(lambda: len(bench.sandbox.jobs) == 2)
    bench.until(lambda: bench.executor._line.length == 1)
    stopping = threading.Thread(target=bench.executor.stop)
    stopping.start()
    until(lambda: bench.executor._line._closed)
    (name,) = bench.names("new")
    assert name in {named(each) for each in "abc"}
    bench.sandbox.gate.set()
    stopping.join(PATIENCE)
    assert len(bench.sandbox.jobs) == 2
    bench.executor = bench.new_executor()
    bench.wait_for("a", "b", "c")


def test_a_job_for_which_limits_grew_while_it_waited_waits_for_that_much(bench: Bench) -> None:
    """The memory that is counted is never less than the container gets."""
    sandbox = bench.sandbox = WatchedSandbox()
    sandbox.bench = bench
    bench.executor.stop()
    bench.executor = bench.new_executor()
    sandbox.gate.clear()
    bench.drop("a", **wants(1500 * MIB))
    bench.until(lambda: len(sandbox.jobs) == 1)
    bench.drop("b")
    bench.drop("c")
    bench.until(lambda: bench.executor._line.length == 2)
    limits = bench.settings.limits
    default = replace(limits.run.default, memory=1200 * MIB)
    grown = replace(bench.settings, limits=replace(limits, run=replace(limits.run, default=default)))
    bench.executor.apply_settings(grown)
    sandbox.gate.set()
    bench.wait_for("a", "b", "c")
    assert [memory for memory, _ in sandbox.counted[1:]] == [sizes.asked(grown.limits, sandbox.jobs[1])] * 2
    assert all(memory <= counted for memory, counted in sandbox.counted)
    assert [job.attempt for job in sandbox.jobs] == [1, 1, 1]
    assert sandbox.jobs[1].run.memory == 1200 * MIB


def test_a_job_whose_time_grew_while_it_waited_is_counted_with_that(bench: Bench) -> None:
    """Otherwise it could delay a job for which room is kept, longer than was promised."""
    sandbox = bench.sandbox = WatchedSandbox()
    sandbox.bench = bench
    bench.executor.stop()
    bench.executor = bench.new_executor()
    sandbox.gate.clear()
    bench.drop("a", **wants(1500 * MIB))
    bench.until(lambda: len(sandbox.jobs) == 1)
    bench.drop("b", **wants(1500 * MIB))
    bench.until(lambda: bench.executor._line.length == 1)
    limits = bench.settings.limits
    grown = replace(limits.run, default=replace(limits.run.default, time=200))
    bench.executor.apply_settings(replace(bench.settings, limits=replace(limits, run=grown)))
    sandbox.gate.set()
    bench.wait_for("a", "b")
    assert sandbox.times[1:] == [(200, 200)]
    assert [job.attempt for job in sandbox.jobs] == [1, 1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop files of several users")
def test_a_big_job_that_is_cancelled_keeps_nobody_waiting(bench: Bench) -> None:
    bench.sandbox.gate.clear()
    drop_as(bench, ONE, "a", 1500 * MIB)
    bench.until(lambda: len(bench.sandbox.jobs) == 1)
    drop_as(bench, OTHER, "big", 2 * GIB)
    bench.until(lambda: bench.executor._line._ready._room)
    drop_as(bench, THIRD, "s1 s2", 50 * MIB)
    bench.until(lambda: bench.executor._line.length == 3)
    cancel = bench.root / "incoming" / ".cancel"
    cancel.write_text("big")
    os.chown(cancel, OTHER, OTHER)
    cancel.rename(cancel.with_name("big.cancel"))
    bench.until(lambda: len(bench.names("new")) == 2, step=bench.intake.step)
    bench.until(lambda: len(bench.sandbox.jobs) == 3)
    assert {job.submission_id for job in bench.sandbox.jobs} == {"a", "s1", "s2"}


class LimitedSandbox(PlainSandbox):
    """A sandbox that records the limits that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: list[Limits] = []

    def go_by(self, limits: Limits) -> None:
        self.limits.append(limits)


def test_engines_are_told_of_other_limits_also_those_that_are_made_later(bench: Bench) -> None:
    sandbox = bench.sandbox = LimitedSandbox()
    bench.executor.stop()
    bench.executor = bench.new_executor()
    bench.until(bench.executor._engine.ready.is_set)
    bench.executor.apply_settings(bench.settings)
    assert not sandbox.limits, "no limit has changed"
    limits = bench.settings.limits
    default = replace(limits.run.default, memory=100 * MIB)
    changed = replace(limits, run=replace(limits.run, default=default))
    bench.executor.apply_settings(replace(bench.settings, limits=changed))
    told = within(changed, 2 * GIB)
    assert sandbox.limits == [told]
    bench.sandbox = LimitedSandbox()
    assert bench.executor._provided.runtime is not None
    bench.executor._slots.use_runtime(replace(bench.executor._provided.runtime, system="other"))
    assert bench.sandbox.limits == [told]
