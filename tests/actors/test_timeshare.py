"""Turns by time, from the drop box to the slots.

The owner who used fewer slot-seconds lately is next, with any uids.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import msgspec
import pytest

from spoold.config import BuilderSettings, TurnsSettings
from spoold.host import accounts, persons
from spoold.host.clock import Clock
from spoold.model import timeshare
from spoold.model.ids import parse_entry
from spoold.model.job import Job
from spoold.model.submission import Dependencies
from spoold.sandbox import RunCancelledError
from spoold.upkeep import usage
from tests.actors.bench import Bench, settings_for
from tests.standins import PlainSandbox, store_path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop files of several users")
ALICE, BOB, FIRST = 64_101, 64_102, 100_000


@pytest.fixture(scope="module", autouse=True)
def no_credit() -> Iterator[None]:
    """Let nobody be behind by more than the jobs that run, so that the order is easy to predict."""
    with mock.patch.object(timeshare, "CREDIT", 0.0):
        yield


class HeldSandbox(PlainSandbox):
    """A sandbox that runs each job until the test lets it go. Time passes only when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self._held: dict[str, threading.Event] = {}

    @property
    def running(self) -> set[str]:
        return set(self._held)

    @property
    def begun(self) -> list[str]:
        return [job.submission_id for job in self.jobs]

    def begin(self, job: Job, cancelled: threading.Event) -> None:
        event = self._held[job.submission_id] = threading.Event()
        self.jobs.append(job)
        while not event.wait(0.01):
            if cancelled.is_set():
                raise RunCancelledError(job.submission_id)

    def let_go(self, *names: str) -> None:
        for name in names:
            self._held.pop(name).set()


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> HeldSandbox:
    made = HeldSandbox()
    monkeypatch.setattr(Clock, "monotonic", lambda _: made.now)
    return made


@pytest.fixture
def bench(tmp_path: Path, sandbox: HeldSandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    (tmp_path / "subuid").write_text(f"{ALICE}:{FIRST}:65536\n")
    monkeypatch.setattr(persons, "SUBUID", str(tmp_path / "subuid"))
    made = Bench(tmp_path / "spool", settings_for(tmp_path / "spool", builder=BuilderSettings(parallel=1, slow=0)))
    made.sandbox = sandbox
    made.executor = made.new_executor()
    put(made, "warm", 0)
    take_in(made)
    made.until(lambda: sandbox.running == {"warm"})
    sandbox.let_go("warm")
    made.wait_for("warm")
    yield made
    sandbox.let_go(*sandbox.running)
    made.executor.hurry()
    made.close()


def put(bench: Bench, name: str, owner: int) -> None:
    path = bench.root / "incoming" / f"{name}.json"
    private = path.with_suffix(".tmp")
    private.write_text(json.dumps({"files": [{"name": "run.sh", "content": "true"}]}))
    os.chown(private, owner, owner)
    private.rename(path)


def take_in(bench: Bench) -> None:
    """Let intake accept all dropped files, and the executor learn of them."""
    bench.until(lambda: not bench.names("incoming"), bench.intake.step)
    bench.executor.step()
    while bench.executor._seen:
        bench.executor.step([])


def end_one(bench: Bench, sandbox: HeldSandbox, name: str) -> str:
    """End a job. Return the job that gets its slot."""
    others = sandbox.running - {name}
    sandbox.let_go(name)
    bench.until(lambda: len(sandbox.running) == len(others) + 1, lambda: None)
    (begun,) = sandbox.running - others
    return begun


def test_short_jobs_that_come_while_long_ones_have_all_slots_go_next(bench: Bench, sandbox: HeldSandbox) -> None:
    """One owner has eighteen jobs of 3 s.

    Half a second after both slots began one, another owner drops twenty short ones.
    """
    for number in range(18):
        put(bench, f"long-{number}", ALICE)
    take_in(bench)
    bench.until(lambda: len(sandbox.running) == 2, lambda: None)
    sandbox.now += 0.5
    for number in range(20):
        put(bench, f"short-{number}", BOB)
    take_in(bench)
    sandbox.now += 2.5
    first, second = sandbox.running
    next_ = end_one(bench, sandbox, first)
    for _ in range(19):
        assert next_.startswith("short")
        sandbox.now += 0.1
        next_ = end_one(bench, sandbox, next_)
    assert next_.startswith("short")
    assert sandbox.begun.index(next_) == 22, "after the warm-up, two long jobs and nineteen short ones"
    assert end_one(bench, sandbox, second).startswith("long")


def test_jobs_of_a_hundred_subordinate_uids_are_one_person_s(bench: Bench, sandbox: HeldSandbox) -> None:
    for number in range(120):
        put(bench, f"many-{number}", FIRST + number)
    take_in(bench)
    bench.until(lambda: len(sandbox.running) == 2, lambda: None)
    sandbox.now += 0.1
    put(bench, "other", BOB)
    take_in(bench)
    assert end_one(bench, sandbox, min(sandbox.running)) == "other"


def test_files_of_a_hundred_subordinate_uids_take_one_turn_of_intake(bench: Bench) -> None:
    for number in range(120):
        put(bench, f"many-{number}", FIRST + number)
    put(bench, "other", BOB)
    bench.intake.step()
    assert [name for name in bench.names("new") if name.startswith("other")]
    assert bench.names("incoming"), "one step takes only a part"


def test_ranges_are_followed(bench: Bench, sandbox: HeldSandbox, tmp_path: Path) -> None:
    def others_before(name: str, first: int) -> int:
        """Return how many of thirty jobs, each of another uid, begin before one that is dropped after them."""
        for number in range(30):
            put(bench, f"before-{name}-{number}", first + number)
        take_in(bench)
        put(bench, name, BOB)
        take_in(bench)
        bench.until(lambda: len(sandbox.running) == 2, lambda: None)
        before = len(sandbox.begun)
        sandbox.now += 1
        while end_one(bench, sandbox, min(sandbox.running)) != name:
            sandbox.now += 1
        begun = len(sandbox.begun)
        while sandbox.running:
            sandbox.let_go(*sandbox.running)
            bench.until(lambda: sandbox.running or not bench.executor._line._ready._busy, lambda: None)
        return begun - before

    (tmp_path / "subuid").write_text("")
    assert others_before("stranger", FIRST) > 20
    (tmp_path / "subuid").write_text(f"{ALICE}:{FIRST}:65536\n")
    assert others_before("guest", FIRST + 200) < 10


def test_who_used_what_is_noted_for_the_operator(bench: Bench, sandbox: HeldSandbox) -> None:
    for name, owner in (("a", ALICE), ("s1", FIRST + 7), ("b", BOB)):
        put(bench, name, owner)
    take_in(bench)
    bench.until(lambda: len(sandbox.running) == 2, lambda: None)
    sandbox.now += 60
    sandbox.let_go(*sandbox.running)
    bench.until(lambda: sandbox.running == {"s1"} and bench.executor._line._ready._busy == 1, lambda: None)
    sandbox.now += 10
    bench.executor.step()
    noted = usage.noted(str(bench.root), 0.0)
    assert noted[BOB] == pytest.approx(60, rel=0.02)
    assert noted[ALICE] == pytest.approx(70, rel=0.02)
    assert FIRST + 7 not in noted
    assert (bench.root / "tmp" / "executor-default.usage").stat().st_mode & 0o007 == 0, "the file tells who is at work"


def test_weights_are_taken_over(bench: Bench, sandbox: HeldSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "uid_of", {"alice": ALICE}.get)
    other = msgspec.structs.replace(bench.settings, turns=TurnsSettings(weights={"alice": 4.0}))
    bench.executor.apply_settings(other)
    bench.builder.apply_settings(other)
    for number in range(20):
        put(bench, f"a-{number}", ALICE)
        put(bench, f"b-{number}", BOB)
    take_in(bench)
    bench.until(lambda: len(sandbox.running) == 2, lambda: None)
    for _ in range(18):
        sandbox.now += 1
        end_one(bench, sandbox, sandbox.begun[-2] if sandbox.begun[-2] in sandbox.running else min(sandbox.running))
    assert 14 <= sum(name.startswith("a") for name in sandbox.begun[1:]) <= 18
    gone = msgspec.structs.replace(bench.settings, turns=TurnsSettings(weights={"gone": 4.0}))
    bench.executor.apply_settings(gone)
    bench.builder.apply_settings(gone)


# -- builds


def file(bench: Bench, build_id: str, client: int) -> None:
    bench.builds.uses.note(build_id, client)
    bench.builds.request(Dependencies(build_id=build_id, expression="", nixpkgs=store_path("nixpkgs")))


def test_builds_of_a_hundred_subordinate_uids_are_one_person_s(bench: Bench, sandbox: HeldSandbox) -> None:
    bench.backend.gate.clear()
    before = len(bench.backend.built)
    for number in range(20):
        file(bench, f"many-{number:02}", FIRST + number)
    bench.until(lambda: len(bench.backend.built) == before + 1, bench.builder.step)
    sandbox.now += 1
    file(bench, "other", BOB)
    bench.builder.step()
    bench.backend.gate.set()
    bench.until(lambda: len(bench.builds.finished()) >= 21, bench.builder.step)
    assert bench.backend.built[before + 1] == "other"


def test_a_client_whose_builds_took_long_comes_after_one_whose_builds_did_not(
    bench: Bench, sandbox: HeldSandbox
) -> None:
    bench.backend.gate.clear()
    before = len(bench.backend.built)
    for number in range(3):
        file(bench, f"long-{number}", ALICE)
    bench.until(lambda: len(bench.backend.built) == before + 1, bench.builder.step)
    sandbox.now += 60
    for number in range(5):
        file(bench, f"short-{number}", BOB)
    bench.builder.step()
    bench.backend.gate.set()
    bench.until(lambda: len(bench.builds.finished()) >= 8, bench.builder.step)
    order = [key for key, _ in itertools.groupby(bench.backend.built[before:], lambda name: name.partition("-")[0])]
    assert order == ["long", "short", "long"]
    assert all(parse_entry(f"{name}.json") for name in bench.backend.built)
