"""Submissions get from the drop box to a response, whichever process stops, stalls or fails on the way."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoold.actors import health
from spoold.actors.executor import building, pace
from spoold.actors.executor.pace import LOOKS
from spoold.config import BuilderSettings, ExecutorSettings
from spoold.host import fsops, machine
from spoold.model.ids import Entry, Hint
from spoold.model.job import BuildResult
from spoold.model.response import Package
from spoold.model.states import State
from spoold.spool.builds import BuildStore
from spoold.spool.newer import OnNewer
from spoold.spool.queue import Queue
from spoold.spool.results import Results
from spoold.upkeep import floor
from tests.actors.bench import PATIENCE, Bench, settings_for
from tests.names import mine, named
from tests.standins import store_path

# Keys of a response that say when and where it was made.
OF_A_JOB = ("started", "build_wait", "queue_wait")
MORE = ("submitted", "started", "finished", "build_wait", "queue_wait", "attempt", "host")


def test_the_main_flow(bench: Bench) -> None:
    bench.drop("a", 'cat; echo "$1" "$WHO"', inputs="in\n", args=["--privileged"], env={"WHO": "me"})
    bench.wait_for("a")
    response = bench.response("a")
    assert list(response) == ["Submission_id", "request_sha256", "status", "dependencies", "compile", "run", *MORE]
    assert response["status"] == "COMPLETED"
    assert response["run"]["stdout"] == "in\n--privileged me\n"
    assert response["run"]["outcome"] == "ok"
    assert response["compile"] == {"stdout": "", "stderr": "", "time": "", "signal": "", "outcome": "skipped"}
    assert response["dependencies"]["outcome"] == "ok"
    assert (bench.root / "done" / "a.response.json").read_bytes().endswith(b"}\n")
    bench.assert_nothing_is_left()


def test_when_and_where_a_response_was_made(bench: Bench) -> None:
    before = time.time()
    bench.drop("a")
    bench.wait_for("a")
    bench.drop("b")
    bench.wait_for("b")
    first, second = bench.response("a"), bench.response("b")
    moments = [datetime.fromisoformat(each[key]).timestamp() for each in (first, second) for key in MORE[:3]]
    assert moments == sorted(moments)
    assert before - 2 < moments[0] <= moments[-1] < time.time() + 2
    submitted, started = moments[:2]
    assert first["build_wait"] + first["queue_wait"] == pytest.approx(started - submitted, abs=0.01)
    assert (second["build_wait"], second["attempt"], second["host"]) == (0.0, 1, os.uname().nodename)


def test_what_had_no_job_waited_for_none(bench: Bench) -> None:
    bench.drop("no", priority=101)
    bench.wait_for("no")
    response = bench.response("no")
    assert {"submitted", "finished", "host"} <= set(response)
    assert not {*OF_A_JOB, "attempt"} & set(response)


def test_a_submission_whose_build_exists_goes_straight_to_running(bench: Bench) -> None:
    bench.drop("a")
    bench.wait_for("a")
    bench.sandbox.gate.clear()
    bench.drop("b")
    bench.until(lambda: bench.names("running"), bench.executor.step)
    assert bench.names("running") == {named("b")}
    assert len(bench.backend.built) == 1
    bench.sandbox.gate.set()
    bench.wait_for("b")


def test_compile_and_its_failure(bench: Bench) -> None:
    bench.drop("a", "cat out", files=[{"name": "compile.sh", "content": "echo made > out"}])
    bench.drop("b", "true", files=[{"name": "compile.sh", "content": "echo no >&2; exit 3"}])
    bench.wait_for("a", "b")
    assert (bench.response("a")["status"], bench.response("a")["run"]["stdout"]) == ("COMPLETED", "made\n")
    failed = bench.response("b")
    assert (failed["status"], failed["compile"]["exit_code"], failed["compile"]["stderr"]) == (
        "COMPILE_FAILED",
        3,
        "no\n",
    )
    assert failed["run"]["outcome"] == "skipped"


@pytest.mark.parametrize(
    ("script", "limits", "status", "outcome"),
    [
        ("exit 7", {}, "RUN_FAILED", "nonzero_exit"),
        ("sleep 60", {"run": {"time": 0.2}}, "RUN_FAILED", "time_limit"),
        ("echo COMPLETED; exit 1", {}, "RUN_FAILED", "nonzero_exit"),
        ("echo 12345", {"run": {"stdout": 2}}, "COMPLETED", "ok"),
        ("echo 12345", {"run": {"stdout": 2, "on_output_limit": "end"}}, "RUN_FAILED", "output_limit"),
        ("echo 12345", {"run": {"stdout": 2, "on_output_limit": "continue"}}, "COMPLETED", "ok"),
        ("echo 12345", {"run": {"stdout": 2, "on_output_limit": "stop"}}, "REJECTED", "skipped"),
        ("echo 12345", {"run": {"stdout": 2}, "dependencies": {"on_output_limit": "end"}}, "COMPLETED", "ok"),
    ],
)
def test_ways_to_fail(bench: Bench, script: str, limits: dict[str, object], status: str, outcome: str) -> None:
    bench.drop("a", script, limits=limits)
    bench.wait_for("a")
    assert (bench.response("a")["status"], bench.response("a")["run"]["outcome"]) == (status, outcome)


def test_a_failed_build_ends_all_that_wait_for_it_and_is_tried_again_later(tmp_path: Path) -> None:
    bench = Bench(tmp_path, settings_for(tmp_path, builder=BuilderSettings(failure_memory=0.2)))
    bench.backend.gate.clear()
    for id_ in ("a", "b"):
        bench.drop(id_, expression="broken")
    bench.drop("c", expression="fine")
    bench.until(lambda: len(bench.names("building")) == 3 and bench.names("builds/building"))
    assert bench.progress("a") == "INSTALLING_DEPENDENCIES"
    waiting_for = bench.builds.queue.entries(State.BUILDING)[0].id
    hint = Hint("builds/building", f"{waiting_for}@1.json")
    bench.executor.step([hint])
    shown = [json.loads((bench.root / "progress" / f"{id_}.json").read_bytes())["waiting_for"] for id_ in "abc"]
    assert {"build_id": waiting_for, "state": "building"} in shown
    bench.backend.gate.set()
    bench.wait_for("a", "b", "c")
    for id_ in ("a", "b"):
        assert bench.response(id_)["status"] == "DEPENDENCIES_FAILED"
        assert "undefined variable" in bench.response(id_)["dependencies"]["stderr"]
        assert bench.response(id_)["run"]["outcome"] == "skipped"
    assert bench.response("c")["status"] == "COMPLETED"
    assert len(bench.backend.built) == 2
    bench.drop("d", expression="broken")
    bench.wait_for("d")
    assert len(bench.backend.built) == 2, "the failure was remembered"
    bench.until(lambda: len(bench.builds.finished()) == 1, bench.health.step)
    bench.drop("e", expression="broken")
    bench.wait_for("e")
    assert len(bench.backend.built) == 3, "and forgotten after a while"
    bench.assert_nothing_is_left()
    bench.close()


def test_what_was_built_already_is_said_to_be_and_took_no_time(bench: Bench) -> None:
    bench.drop("a", expression="good")
    bench.drop("b", expression="broken")
    bench.wait_for("a", "b")
    bench.drop("c", expression="good")
    bench.drop("d", expression="broken")
    bench.wait_for("c", "d")
    phases = {id_: bench.response(id_)["dependencies"] for id_ in "abcd"}
    assert {id_: phase["cached"] for id_, phase in phases.items()} == {"a": False, "b": False, "c": True, "d": True}
    for first, later in (("a", "c"), ("b", "d")):
        assert phases[first]["time"] > 0
        assert [phases[later][key] for key in ("time", "cpu_time", "memory")] == [0, 0, 0]
        told = ("outcome", "stdout", "stderr", "stderr_bytes", "exit_code")
        assert [phases[later][key] for key in told] == [phases[first][key] for key in told]
        assert "cached" not in bench.response(first)["run"]


def test_a_hundred_submissions_of_one_environment_cause_one_build(bench: Bench) -> None:
    bench.backend.gate.clear()
    ids = [f"job-{number}" for number in range(100)]
    for id_ in ids:
        bench.drop(id_, f"echo {id_}")
    bench.until(lambda: len(bench.names("building")) == 100)
    bench.backend.gate.set()
    bench.wait_for(*ids)
    assert len(bench.backend.built) == 1
    assert {id_: bench.response(id_)["run"]["stdout"] for id_ in ids} == {id_: f"{id_}\n" for id_ in ids}
    bench.assert_nothing_is_left()


def test_ten_environments_cause_ten_builds(bench: Bench) -> None:
    ids = [f"job-{number}" for number in range(10)]
    for id_ in ids:
        bench.drop(id_, expression=f"# {id_}")
    bench.wait_for(*ids)
    assert len(set(bench.backend.built)) == len(bench.backend.built) == 10


def test_waiting_for_a_build_holds_no_slot(bench: Bench) -> None:
    bench.drop("warm")
    bench.wait_for("warm")
    bench.backend.gate.clear()
    for number in range(10):
        bench.drop(f"slow-{number}", expression=f"# {number}")
    bench.drop("quick")
    bench.wait_for("quick")
    assert len(bench.names("building")) == 10


def test_a_failed_build_is_answered_while_all_slots_are_busy(bench: Bench) -> None:
    bench.sandbox.gate.clear()
    bench.drop("a")
    bench.drop("b")
    bench.until(lambda: len(bench.names("running")) == 2)
    bench.drop("c", expression="broken")
    bench.wait_for("c")
    bench.sandbox.gate.set()
    bench.wait_for("a", "b")


@pytest.mark.parametrize("expression", ["good", "broken"])
def test_a_wish_that_nobody_can_have_is_noted(bench: Bench, expression: str) -> None:
    bench.drop("a", expression=expression, limits={"dependencies": {"time": 60, "memory": 1 << 30}})
    bench.wait_for("a")
    (note,) = bench.response("a")["notes"]
    assert note.startswith("limits.dependencies.memory: builds are bounded by this host's own limits")


def test_what_the_sandbox_notes_is_told_after_what_was_noted_before(bench: Bench) -> None:
    bench.drop("a")
    bench.wait_for("a")
    assert "notes" not in bench.response("a")
    bench.sandbox.notes = ["run.sh is a directory"]
    bench.drop("b", limits={"dependencies": {"memory": 1 << 30}})
    bench.wait_for("b")
    first, second = bench.response("b")["notes"]
    assert (first.startswith("limits.dependencies.memory"), second) == (True, "run.sh is a directory")


def test_the_wait_for_a_build_is_bounded_by_the_submissions_own_limit(bench: Bench) -> None:
    bench.backend.gate.clear()
    bench.drop("a", limits={"dependencies": {"time": 0.2}})
    bench.drop("b")
    bench.wait_for("a")
    response = bench.response("a")
    dependencies = response["dependencies"]
    assert (response["status"], dependencies["outcome"]) == ("DEPENDENCIES_FAILED", "time_limit")
    assert 0 < dependencies["time"] < PATIENCE
    assert (dependencies["cached"], dependencies["exit_code"]) == (False, None)
    assert dependencies["stderr_bytes"] == len(dependencies["stderr"]) > 0
    bench.backend.gate.set()
    bench.wait_for("b")
    assert bench.response("b")["status"] == "COMPLETED", "the build went on for others"


def test_packages_are_listed_to_who_used_them(bench: Bench) -> None:
    bench.drop_bytes("none", b'{"kind": "list-dependencies"}')
    bench.wait_for("none")
    assert bench.response("none")["packages"] == []
    bench.drop("a")
    bench.wait_for("a")
    path = bench.root / "incoming" / "stranger.json"
    path.write_bytes(b'{"kind": "list-dependencies"}')
    os.chown(path, 65534, 65534)
    bench.intake.step()
    bench.drop_bytes("mine", b'{"kind": "list-dependencies"}')
    bench.wait_for("mine", "stranger")
    assert [package["name"] for package in bench.response("mine")["packages"]] == ["hello"]
    assert bench.response("stranger")["packages"] == []
    package = bench.response("mine")["packages"][0]
    assert package["last_used"] == pytest.approx(time.time(), abs=60)
    assert len(package["builds"]) == 1


def test_progress_is_shown_to_the_owner(bench: Bench) -> None:
    bench.sandbox.gate.clear()
    bench.drop("a", files=[{"name": "compile.sh", "content": "true"}])
    assert bench.progress("a") == "pending"
    bench.until(lambda: bench.progress("a") == "COMPILING")
    for id_ in ("b", "c"):
        bench.drop(id_, expression=f"# {id_}")
    bench.until(lambda: "DEPENDENCIES_INSTALLED" in (bench.progress("b"), bench.progress("c")))
    bench.sandbox.gate.set()
    bench.wait_for("a", "b", "c")
    bench.until(lambda: bench.names("progress") == set())


def test_hints_alone_carry_a_submission_through(bench: Bench) -> None:
    bench.drop("a")
    bench.executor.step([])
    assert bench.names("new") == {named("a")}
    bench.executor.step([Hint("new", named("a")), Hint("new", named("gone")), Hint("new", "nonsense")])
    build = next(iter(bench.names("builds/new")))
    bench.builder.step([Hint("builds/new", build)])
    name = build.replace(".json", ".response.json")
    bench.until(lambda: bench.has("builds/done", name), lambda: None)
    bench.executor.step([Hint("builds/done", name)])
    bench.until(lambda: bench.has("done", "a.response.json"), lambda: None)


def test_a_dead_executors_work_is_done_by_another(bench: Bench) -> None:
    bench.drop("a", "echo $$ > /dev/null; echo once")
    bench.until(lambda: bench.has("builds/done", f"{bench.backend.built[0]}.json") if bench.backend.built else False)
    bench.wait_for("a")
    bench.drop("b")
    bench.spool.queue.claim(mine("b"), State.NEW, State.RUNNING)  # its executor is killed here
    bench.let_leases_run_out("running")
    bench.until(lambda: bench.has("new", named("b", 2)), bench.health.step)
    bench.wait_for("b")
    assert bench.response("b")["status"] == "COMPLETED"
    bench.assert_nothing_is_left()


def test_what_an_executor_held_is_put_back_when_it_starts_again(bench: Bench) -> None:
    bench.drop("a")
    bench.wait_for("a")
    killed = []  # Python would end a context that nobody refers to
    for attempt in (1, 2, 3):
        bench.drop("b")
        path = bench.spool.queue.claim(mine("b", attempt), State.NEW, State.RUNNING)
        killed.append(bench.executor._slots._heartbeat.holding(path))
        killed[-1].__enter__()  # the executor is killed here
        bench.executor.stop()
        bench.executor = bench.new_executor()
        if attempt < 3:
            assert bench.names("new") == {named("b", attempt + 1)}, "at once, without a wait for the lease"
    assert bench.response("b")["status"] == "INTERNAL_ERROR"
    assert "3 times" in bench.response("b")["reason"]
    bench.assert_nothing_is_left()


def test_a_stalled_executor_cannot_publish_after_another_has(bench: Bench, tmp_path: Path) -> None:
    bench.drop("a", "echo $RANDOM")
    bench.wait_for("a")
    bench.sandbox.gate.clear()
    bench.drop("b", "echo first")
    bench.until(lambda: len(bench.sandbox.jobs) == 2, bench.executor.step)
    bench.executor._slots._heartbeat.stop()
    bench.let_leases_run_out("running")
    bench.until(lambda: bench.has("new", named("b", 2)), bench.health.step)
    other = bench.new_executor()
    bench.until(lambda: bench.names("running") == {named("b", 2)}, other.step)
    bench.sandbox.gate.set()
    bench.until(lambda: bench.has("done", "b.response.json"), other.step)
    other.stop()
    bench.executor.stop()
    assert len(bench.sandbox.jobs) == 3, "at least once"
    assert bench.names("done") == {"a.json", "a.response.json", "b.json", "b.response.json"}, "exactly one answer"
    bench.assert_nothing_is_left()


def test_three_lost_attempts_are_the_end_and_the_others_flow(bench: Bench) -> None:
    bench.drop("warm")
    bench.wait_for("warm")
    bench.drop("killer")
    for attempt in (1, 2, 3):
        bench.spool.queue.claim(mine("killer", attempt), State.NEW, State.RUNNING)  # its executor dies each time
        bench.let_leases_run_out("running")
        bench.until(lambda n=attempt: not bench.has("running", named("killer", n)), bench.health.step)  # type: ignore[misc] # mypy cannot infer it
    bench.drop("other")
    bench.wait_for("other")
    assert bench.response("killer")["status"] == "INTERNAL_ERROR"
    assert "3 attempts" in bench.response("killer")["reason"]
    assert bench.names("quarantine") == {f"killer@{os.getuid()}-4.{kind}" for kind in ("bytes", "reason")}
    bench.assert_nothing_is_left()


def test_who_used_less_is_next_and_the_jobs_of_one_go_by_priority(tmp_path: Path) -> None:
    bench = Bench(tmp_path, settings_for(tmp_path, executor=ExecutorSettings(slots=1)))
    bench.drop("warm")
    bench.wait_for("warm")
    bench.sandbox.gate.clear()
    bench.drop("first")
    bench.until(lambda: len(bench.sandbox.jobs) == 2, bench.executor.step)
    for id_, priority in (("a-low", -1), ("a-1", 0), ("a-2", 0), ("a-high", 7)):
        bench.drop(id_, priority=priority)
        bench.executor.step([Hint("new", named(id_))])
    stranger = bench.root / "incoming" / "b.json"
    stranger.write_bytes(json.dumps({"files": [{"name": "run.sh", "content": "true"}]}).encode())
    os.chown(stranger, 65534, 65534)
    bench.intake.step()
    bench.executor.step([Hint("new", named("b"))])
    bench.sandbox.gate.set()
    bench.wait_for("a-low", "a-1", "a-2", "a-high", "b")
    order = [job.submission_id for job in bench.sandbox.jobs[2:]]
    assert order == ["b", "a-high", "a-1", "a-2", "a-low"]
    bench.close()


def test_a_step_looks_at_so_much_and_tells_of_the_rest(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.executor._pace, "_enough", math.inf)
    bench.drop("warm")
    bench.wait_for("warm")
    bench.sandbox.gate.clear()
    for number in range(2 * LOOKS):
        bench.drop_bytes(f"a{number}", b'{"files": [{"name": "run.sh", "content": "true"}]}')
    assert bench.executor.step() == 0
    assert bench.executor.step([]) > 0
    bench.sandbox.gate.set()
    bench.wait_for(*(f"a{number}" for number in range(2 * LOOKS)))
    bench.assert_nothing_is_left()


def slow_builds(bench: Bench, count: int) -> list[str]:
    """Drop submissions that all need one build, which goes on until the gate opens. Return their ids."""
    bench.drop("warm")
    bench.wait_for("warm")
    bench.backend.gate.clear()
    many = [f"many-{number}" for number in range(count)]
    for id_ in many:
        bench.drop(id_, expression="# slow", limits={"dependencies": {"time": 500}})
    return many


@pytest.mark.usefixtures("paced")
def test_a_step_ends_when_looks_took_long(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries can be as large as their owners like. Between two steps the executor sees what arrived meanwhile."""
    many = slow_builds(bench, 6)
    now, looks, spool = [time.monotonic()], [0], bench.executor._spool
    plain = spool.read

    def read(state: State, entry: Entry) -> Any:
        now[0], looks[0] = now[0] + 0.6 * pace.LONG, looks[0] + 1
        return plain(state, entry)

    monkeypatch.setattr(spool, "read", read)
    monkeypatch.setattr(spool.clock, "monotonic", lambda: now[0])
    for number in range(3):
        assert bench.executor.step([] if number else None) == 0 or number == 2
        assert looks[0] == 2 * (number + 1), "a step has no time for more"
    now[0], looks[0] = now[0] + 1000, 0  # the time of all waits is over
    for number in range(3):
        assert bench.executor.step([]) == 0 or number == 2
        assert looks[0] == 2 * (number + 1), "a step has no time for more"
    bench.wait_for(*many)


def test_below_half_the_floor_nothing_is_begun(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "LOOK", 0.0)
    bench.drop("warm")
    bench.wait_for("warm")
    bench.drop("a")
    monkeypatch.setattr(machine, "shortage", lambda *_: "1 MiB of disk are free")
    for _ in range(20):
        bench.step()
        time.sleep(0.01)
    assert bench.names("new") == {named("a")}
    monkeypatch.undo()
    bench.wait_for("a")
    assert bench.response("a")["status"] == "COMPLETED"


def test_an_attempt_is_not_made_before_it_is_due(tmp_path: Path) -> None:
    """This holds whichever actor put it back. Other submissions flow meanwhile."""
    settings = settings_for(tmp_path)
    pause = 300.0
    bench = Bench(
        tmp_path, msgspec.structs.replace(settings, lease=msgspec.structs.replace(settings.lease, pause=pause))
    )
    bench.drop("warm")
    bench.wait_for("warm")
    for id_, look in (("by-health", bench.health.step), ("by-executor", bench.step)):
        bench.drop(id_)
        if id_ == "by-health":
            bench.spool.queue.claim(mine(id_), State.NEW, State.RUNNING)  # its executor dies
            bench.let_leases_run_out("running")
        else:
            bench.sandbox.failures = 1
        before = bench.spool.clock.file_system()
        bench.until(lambda id_=id_: bench.has("new", named(id_, 2)), look)  # type: ignore[misc] # mypy cannot infer it
        waits = bench.root / "new" / named(id_, 2)
        assert before <= waits.stat().st_mtime <= bench.spool.clock.file_system(), "the pause begins now"
        bench.drop(f"beside-{id_}")
        bench.wait_for(f"beside-{id_}")
        assert waits.exists()
        restarted = bench.new_executor()  # the pause outlives the process that made it
        for _ in range(3):
            restarted.step()
        restarted.stop()
        assert waits.exists()
        os.utime(waits, (1, 1))  # makes it due
        restarted = bench.new_executor()
        bench.until(lambda id_=id_: bench.has("done", f"{id_}.response.json"), restarted.step)  # type: ignore[misc] # mypy cannot infer it
        assert bench.response(id_)["status"] == "COMPLETED"
        restarted.stop()
    bench.close()


def test_an_engine_that_is_away_costs_no_attempt(bench: Bench) -> None:
    bench.sandbox.gate.clear()
    bench.drop("a")
    bench.until(lambda: bench.names("running"))
    bench.sandbox.away = True
    bench.sandbox.gate.set()
    bench.until(lambda: bench.has("new", named("a")), bench.executor.step)
    for _ in range(10):
        bench.step()
    assert bench.names("new") == {named("a")}
    assert not bench.has("done", "a.response.json")
    bench.sandbox.away = False
    bench.wait_for("a")
    assert bench.response("a")["status"] == "COMPLETED"


def test_a_job_that_fails_in_a_healthy_engine_costs_attempts(bench: Bench) -> None:
    bench.sandbox.failures = 2
    bench.drop("a")
    bench.wait_for("a")
    assert bench.response("a")["status"] == "COMPLETED"
    bench.sandbox.failures = 3
    bench.drop("b")
    bench.wait_for("b")
    assert bench.response("b")["status"] == "INTERNAL_ERROR"
    assert "the engine failed" in bench.response("b")["reason"]
    bench.assert_nothing_is_left()


def test_an_entry_that_cannot_be_read_is_set_aside_and_the_others_flow(bench: Bench) -> None:
    (bench.root / "new" / named("bad")).write_bytes(b"{")
    bench.drop("a")
    bench.wait_for("a", "bad")
    assert bench.response("bad")["status"] == "INTERNAL_ERROR"
    assert (bench.root / "quarantine" / f"bad@{os.getuid()}-1.bytes").read_bytes() == b"{"


def test_a_builder_that_dies_three_times_on_a_build_ends_it(bench: Bench) -> None:
    bench.drop("a")
    bench.executor.step()
    build = Entry(next(iter(bench.names("builds/new"))).removesuffix(".json"), 1)
    for attempt in (1, 2, 3):
        bench.builds.queue.claim(Entry(build.id, attempt), State.NEW, State.BUILDING)
        bench.let_leases_run_out("builds/building")
        bench.until(lambda n=attempt: not bench.has("builds/building", f"{build.id}@{n}.json"), bench.health.step)  # type: ignore[misc] # mypy cannot infer it
    bench.wait_for("a")
    assert bench.response("a")["status"] == "INTERNAL_ERROR"
    assert "given up after 3 attempts" in bench.response("a")["dependencies"]["stderr"]


def test_a_waiting_submission_without_a_build_is_served_again(bench: Bench) -> None:
    """The executor died after its claim and before it filed the build."""
    bench.drop("a")
    bench.spool.queue.claim(mine("a"), State.NEW, State.BUILDING)
    bench.wait_for("a")
    assert bench.response("a")["status"] == "COMPLETED"


def test_health_puts_a_waiting_submission_back_only_where_there_is_no_build(bench: Bench) -> None:
    bench.backend.gate.clear()
    bench.drop("a", expression="# slow")
    bench.until(lambda: bench.names("builds/building"))
    bench.drop("b", expression="# never filed")
    bench.spool.queue.claim(mine("b"), State.NEW, State.BUILDING)
    for name in (named("a"), named("b")):
        os.utime(bench.root / "building" / name, (1, 1))
    bench.until(lambda: bench.has("new", named("b", 2)), bench.health.step)
    assert bench.has("building", named("a"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_crash_after_the_commit_is_mended_by_whoever_comes_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed: list[Entry] = []

    def crash(_results: Results, entry: Entry) -> None:
        crashed.append(entry)
        raise SystemExit

    bench.drop("a")
    with monkeypatch.context() as patched:
        patched.setattr(Results, "_link", crash)
        bench.until(lambda: crashed)
    assert bench.has("builds/done", f"{bench.backend.built[0]}.json")
    bench.health.step()
    assert bench.has("builds/done", f"{bench.backend.built[0]}.response.json")
    with monkeypatch.context() as patched:
        patched.setattr(Results, "_link", crash)
        bench.until(lambda: len(crashed) == 2)
    assert bench.has("done", "a.json")
    assert not bench.has("done", "a.response.json")
    bench.until(lambda: bench.has("done", "a.response.json"), bench.health.step)
    assert bench.response("a")["status"] == "COMPLETED"
    bench.assert_nothing_is_left()


def test_stopping_finishes_what_runs_and_takes_nothing_new(tmp_path: Path) -> None:
    one_slot = settings_for(tmp_path, executor=ExecutorSettings(slots=1))
    bench = Bench(tmp_path, one_slot)
    bench.drop("warm")
    bench.wait_for("warm")
    bench.sandbox.gate.clear()
    for id_ in ("a", "b", "c"):
        bench.drop(id_)
    bench.until(lambda: len(bench.names("running")) == 1, bench.executor.step)
    stopper = threading.Thread(target=bench.executor.stop)
    stopper.start()
    bench.until(lambda: bench.executor._line._closed, lambda: None)
    bench.sandbox.gate.set()
    stopper.join(PATIENCE)
    assert not stopper.is_alive()
    assert bench.sandbox.closed
    assert len(bench.names("new")) == 2
    assert len([name for name in bench.names("done") if name.endswith(".response.json")]) == 2
    bench.executor = bench.new_executor()
    bench.wait_for("a", "b", "c")
    bench.close()


def test_stopping_puts_back_what_takes_too_long(tmp_path: Path) -> None:
    bench = Bench(tmp_path, settings_for(tmp_path, executor=ExecutorSettings(slots=1, drain=0.1)))
    bench.drop("warm")
    bench.wait_for("warm")
    bench.sandbox.gate.clear()
    bench.drop("a")
    bench.until(lambda: bench.names("running"), bench.executor.step)
    bench.executor.stop()
    assert bench.names("new") == {named("a")}, "and it lost no attempt"
    bench.sandbox.gate.set()
    bench.executor = bench.new_executor()
    bench.wait_for("a")
    bench.close()


def test_a_stopping_builder_puts_its_builds_back(bench: Bench) -> None:
    bench.backend.gate.clear()
    bench.drop("a")
    bench.until(lambda: bench.names("builds/building"))
    bench.builder.stop()
    assert len(bench.names("builds/new")) == 1
    assert "@" not in next(iter(bench.names("builds/new"))), "and it lost no attempt"


def test_a_store_that_is_away_costs_no_attempt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spoold.actors.builder.work.BACK_OFF", 0.01)
    monkeypatch.setattr("spoold.spool.holding.BACK_OFF", 0.01)
    bench.backend.away = True
    bench.drop("a")
    bench.until(lambda: len(bench.backend.built) > 5)
    bench.backend.away = False
    bench.wait_for("a")
    assert bench.response("a")["status"] == "COMPLETED"


def test_a_build_that_always_fails_in_a_healthy_store_ends(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spoold.actors.builder.work.BACK_OFF", 0.01)
    monkeypatch.setattr("spoold.spool.holding.BACK_OFF", 0.01)
    bench.backend.failures = 3
    bench.drop("a")
    bench.wait_for("a")
    assert bench.response("a")["status"] == "INTERNAL_ERROR"
    assert len(bench.backend.built) == 3


def test_private_files_that_nobody_comes_back_to_are_removed(bench: Bench) -> None:
    for name in ("a@1.progress.json", "a@1-01234567.refused.json", "young@1.progress.json", "intake.lock"):
        (bench.root / "tmp" / name).touch()
        if not name.startswith("young"):
            os.utime(bench.root / "tmp" / name, (1, 1))
    bench.health.step()
    assert bench.names("tmp") == {"young@1.progress.json", "intake.lock"}


def test_a_change_of_the_pin_makes_new_builds(bench: Bench) -> None:
    bench.drop("a")
    bench.wait_for("a")
    runtime = bench.builds.runtime.read()
    assert runtime is not None
    other = store_path("other-nixpkgs")
    bench.builds.runtime.provide(msgspec.structs.replace(runtime, nixpkgs={"default": other}))
    bench.builder._provider._pins[other] = "default"
    bench.drop("b")
    bench.wait_for("b")
    assert len(set(bench.backend.built)) == 2


def test_a_pin_that_is_gone_is_said(bench: Bench) -> None:
    bench.drop("a")
    runtime = bench.builds.runtime.read()
    assert runtime is not None
    bench.builds.runtime.provide(msgspec.structs.replace(runtime, nixpkgs={}))
    bench.until(lambda: bench.has("done", "a.response.json"), bench.executor.step)
    assert (bench.response("a")["status"], "default" in bench.response("a")["reason"]) == ("REJECTED", True)


def test_a_full_disk_at_the_commit_costs_no_attempt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spoold.actors.executor.slots.BACK_OFF", 0.01)
    monkeypatch.setattr("spoold.spool.holding.BACK_OFF", 0.01)
    commit, full = Results.commit, [True] * 5

    def commit_when_there_is_space(results: Results, entry: Entry, *arguments: Any, **options: Any) -> None:
        if entry.id == "a" and full:
            full.pop()
            raise OSError(28, "No space left on device")
        commit(results, entry, *arguments, **options)

    monkeypatch.setattr(Results, "commit", commit_when_there_is_space)
    bench.drop("a")
    bench.wait_for("a")
    assert bench.response("a")["status"] == "COMPLETED"
    assert not full
    bench.assert_nothing_is_left()


def full_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Keep the executor from giving back, committing and noting anything. The returned function ends that."""
    full = True
    queue = bench.executor._spool.queue
    give_back, commit = queue.give_back, queue.results.commit

    def unless_full(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if full:
            raise OSError(28, "No space left on device")
        return function(*arguments, **options)

    def make_room() -> None:
        nonlocal full
        full = False

    monkeypatch.setattr(queue, "give_back", partial(unless_full, give_back))
    monkeypatch.setattr(queue.results, "commit", partial(unless_full, commit))
    held = bench.root / "tmp" / "executor-default.held"
    bench.until(lambda: not os.listdir(held), lambda: None)  # the note of an answered entry is removed after the answer
    held.rmdir()
    return make_room


def until_renewed(bench: Bench, id_: str) -> None:
    """Let the executor run until it has renewed the lease on what it holds."""
    path = bench.root / "running" / named(id_)
    os.utime(path, (1, 1))
    bench.until(lambda: path.stat().st_mtime != 1)


def test_an_answer_without_a_sandbox_is_held_until_a_full_disk_lets_it_go(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step waits for the disk, and no other entry is claimed and held as well."""
    bench.drop("warm")
    bench.wait_for("warm")
    make_room = full_disk(bench, monkeypatch)
    bench.drop_bytes("list", b'{"kind": "list-dependencies"}')
    bench.until(lambda: bench.names("running"))
    bench.drop_bytes("next", b'{"kind": "list-dependencies"}')
    bench.step()
    until_renewed(bench, "list")
    assert (bench.names("running"), bench.names("new")) == ({named("list")}, {named("next")})
    make_room()
    bench.wait_for("list", "next")
    assert {bench.response(id_)["status"] for id_ in ("list", "next")} == {"COMPLETED"}
    bench.assert_nothing_is_left()


def test_an_answer_that_waits_for_room_is_held_until_a_full_disk_lets_it_go(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.backend.gate.clear()
    bench.drop("a", expression="broken")
    bench.until(lambda: bench.names("building"))
    make_room = full_disk(bench, monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(bench.executor._floor, "reached", lambda: True)
        bench.backend.gate.set()
        bench.until(lambda: bench.names("running"))
        until_renewed(bench, "a")
        make_room()
        bench.until(lambda: bench.names("new"))
        assert bench.names("new") == {named("a")}
    bench.wait_for("a")
    assert bench.response("a")["status"] == "DEPENDENCIES_FAILED"


def test_what_an_executor_cannot_give_back_when_it_stops_is_anothers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.drop("warm")
    bench.wait_for("warm")
    full_disk(bench, monkeypatch)
    bench.drop_bytes("list", b'{"kind": "list-dependencies"}')
    bench.until(lambda: bench.names("running"))
    bench.executor.stop()
    bench.executor = bench.new_executor()
    bench.let_leases_run_out("running")
    bench.until(lambda: not bench.names("running"), bench.health.step)
    bench.wait_for("list")
    assert bench.response("list")["status"] == "COMPLETED"


def test_a_pin_that_is_added_does_not_replace_the_engine(bench: Bench) -> None:
    bench.drop("a")
    bench.wait_for("a")
    engine = bench.executor._engine.sandbox
    bench.builds.pins.set({"other": "/srv/other"})
    bench.until(lambda: "other" in (bench.builds.runtime.read() or bench.backend.prepare({})).nixpkgs)
    bench.drop("b", nixpkgs="other")
    bench.wait_for("b")
    assert bench.response("b")["status"] == "COMPLETED"
    assert bench.executor._engine.sandbox is engine


def test_a_spool_error_in_one_entry_does_not_stop_the_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    read = fsops.read

    def read_or_fail(path: str, *most: int) -> bytes | None:
        if path.endswith(named("a")):
            raise OSError(5, "Input/output error")
        return read(path, *most)

    monkeypatch.setattr(fsops, "read", read_or_fail)
    bench.drop("a")
    bench.drop("b")
    bench.wait_for("b")
    assert bench.has("new", named("a"))
    monkeypatch.undo()
    bench.wait_for("a")


def test_a_full_disk_costs_no_attempt_where_no_sandbox_is_needed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, full = Results.commit, [True] * 5

    def commit_when_there_is_space(results: Results, entry: Entry, *arguments: Any, **options: Any) -> None:
        if entry.id in {"list", "wait"} and full:
            full.pop()
            raise OSError(28, "No space left on device")
        assert entry.attempt == 1
        commit(results, entry, *arguments, **options)

    monkeypatch.setattr(Results, "commit", commit_when_there_is_space)
    bench.backend.gate.clear()
    bench.drop("wait", limits={"dependencies": {"time": 0.2}})
    bench.drop_bytes("list", b'{"kind": "list-dependencies"}')
    bench.until(lambda: not full and bench.has("done", "list.response.json"), bench.executor.step)
    bench.backend.gate.set()
    bench.wait_for("wait")


def test_a_list_that_cannot_be_made_costs_no_attempt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def packages(_: BuildStore, uid: int | None, newer: OnNewer) -> list[Package]:
        raise OSError(5, "Input/output error")

    bench.drop_bytes("list", b'{"kind": "list-dependencies"}')
    with monkeypatch.context() as patch:
        patch.setattr(BuildStore, "packages", packages)
        for _ in range(3):
            bench.executor.step()
            assert bench.has("new", named("list"))
    bench.wait_for("list")
    bench.assert_nothing_is_left()


def test_a_wait_that_ends_while_its_entry_cannot_be_read_costs_no_attempt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.backend.gate.clear()
    bench.drop("a", limits={"dependencies": {"time": 0.2}})
    bench.until(lambda: bench.names("building"))
    read, failed = fsops.read, []

    def read_or_fail(path: str, *most: int) -> bytes | None:
        if path.endswith(named("a")):
            failed.append(path)
            raise OSError(5, "Input/output error")
        return read(path, *most)

    with monkeypatch.context() as patch:
        patch.setattr(fsops, "read", read_or_fail)
        bench.until(lambda: failed, bench.executor.step)
        assert bench.names("building") == {named("a")}
    bench.wait_for("a")
    assert bench.response("a")["status"] == "DEPENDENCIES_FAILED"


def test_an_error_of_the_spools_disk_costs_a_build_no_attempt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build keeps its attempt where its result cannot be written, and where it cannot then be put back."""
    monkeypatch.setattr("spoold.actors.builder.work.BACK_OFF", 0.01)
    monkeypatch.setattr("spoold.spool.holding.BACK_OFF", 0.01)
    commit, give_back, errors = Results.commit, Queue.give_back, [True] * 10

    def commit_when_it_is_well(results: Results, entry: Entry, *arguments: Any, **options: Any) -> None:
        if entry.id != "a" and errors:
            errors.pop()
            raise OSError(5, "Input/output error")
        assert entry.attempt == 1
        commit(results, entry, *arguments, **options)

    def give_back_when_it_is_well(queue: Queue, *arguments: Any) -> bool:
        if queue.kind == "build" and len(errors) % 2:
            errors.pop()
            raise OSError(5, "Input/output error")
        return give_back(queue, *arguments)

    monkeypatch.setattr(Results, "commit", commit_when_it_is_well)
    monkeypatch.setattr(Queue, "give_back", give_back_when_it_is_well)
    bench.drop("a")
    bench.wait_for("a")
    assert (bench.response("a")["status"], errors) == ("COMPLETED", [])
    bench.assert_nothing_is_left()


def test_an_expression_that_always_makes_an_error_of_the_host_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spoold.actors.builder.work.BACK_OFF", 0.01)
    monkeypatch.setattr("spoold.spool.holding.BACK_OFF", 0.01)

    def build(*_: object) -> BuildResult:
        raise OSError(7, "Argument list too long")

    monkeypatch.setattr(bench.backend, "build", build)
    bench.drop("a")
    bench.wait_for("a")
    assert bench.response("a")["status"] == "INTERNAL_ERROR"
    assert "Argument list too long" in bench.response("a")["dependencies"]["stderr"]


def test_a_disk_that_does_not_say_how_much_is_free_ends_no_slot(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "LOOK", 0.0)
    monkeypatch.setattr("spoold.actors.executor.slots.FULL", 0.01)
    bench.drop("warm")
    bench.wait_for("warm")

    def shortage(*_: object) -> str:
        raise OSError(5, "Input/output error")

    bench.drop("a")
    with monkeypatch.context() as patch:
        patch.setattr(machine, "shortage", shortage)
        for _ in range(20):
            bench.step()
            time.sleep(0.01)
        assert bench.has("new", named("a"))
    bench.wait_for("a")
    assert not bench.executor.stuck(60.0)


def test_an_entry_that_cannot_be_read_does_not_end_intake(bench: Bench) -> None:
    (bench.root / "new" / named("bad")).write_bytes(b"{")
    bench.drop("bad")
    bench.drop("a")
    bench.wait_for("a", "bad")
    assert [name for name in bench.names("done") if name.endswith(".refused.json")]


def test_what_could_not_be_claimed_is_not_given_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes after another executor has claimed the entry, so it must stay where it is."""
    bench.drop("warm")
    bench.wait_for("warm")
    claim = Queue.claim

    def fail(queue: Queue, entry: Entry, source: State, target: State) -> str:
        path = claim(queue, entry, source, target)
        if entry.id == "a" and target is State.RUNNING:
            raise OSError(5, "Input/output error")
        return path

    with monkeypatch.context() as patch:
        patch.setattr("spoold.actors.executor.slots.FULL", 0.01)
        patch.setattr(Queue, "claim", fail)
        bench.drop("a")
        bench.until(lambda: bench.has("running", named("a")))
        for _ in range(20):
            bench.executor.step()
            time.sleep(0.01)
        assert bench.has("running", named("a"))
    bench.let_leases_run_out("running")
    bench.until(lambda: bench.has("new", named("a", 2)), bench.health.step)
    bench.wait_for("a")
    assert bench.response("a")["status"] == "COMPLETED"


def test_after_a_restart_who_waited_for_a_build_is_not_last(tmp_path: Path) -> None:
    """This holds however often executors restart before they are through with later entries."""
    bench = Bench(tmp_path, settings_for(tmp_path, executor=ExecutorSettings(slots=1)))
    bench.drop("a")
    bench.until(lambda: bench.names("building"), bench.executor.step)
    bench.executor.stop()
    bench.until(bench.builds.finished, bench.builder.step)
    for id_ in ("b", "c", "d"):
        bench.wait_for_a_tick()
        bench.drop(id_)
    bench.executor = bench.new_executor()
    bench.wait_for("a", "b", "c", "d")
    assert [job.submission_id for job in bench.sandbox.jobs] == ["a", "b", "c", "d"]
    bench.close()


def test_many_waits_that_end_at_once_are_ended_in_parts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other entries are looked at in between."""
    monkeypatch.setattr(building, "ENDS", 2)
    many = slow_builds(bench, 10)
    bench.until(lambda: len(bench.names("building")) == len(many))
    clock = bench.executor._spool.clock
    monkeypatch.setattr(clock, "monotonic", lambda: time.monotonic() + 1000)
    bench.drop("other")
    assert bench.executor.step() == 0.0
    assert len(bench.names("building")) == len(many) - 2
    bench.until(lambda: bench.has("done", "other.response.json"), lambda: None)
    bench.wait_for(*many)
    assert {bench.response(id_)["dependencies"]["outcome"] for id_ in many} == {"time_limit"}


def test_health_reads_what_waits_once_and_in_parts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.backend.gate.clear()
    ids = [f"many-{number}" for number in range(5)]
    for id_ in ids:
        bench.drop(id_, expression="# slow")
    bench.until(lambda: len(bench.names("building")) == 5 and bench.names("builds/building"))
    for id_ in ids:
        os.utime(bench.root / "building" / named(id_), (1, 1))
    read: list[str] = []
    plain = bench.health._spool.read
    monkeypatch.setattr(
        bench.health._spool,
        "read",
        lambda state, entry: read.append(entry.id) or plain(state, entry),  # type: ignore[func-returns-value]
    )
    monkeypatch.setattr(health, "STEP_BUDGET", -1.0)
    looked: list[str] = []
    look = bench.health._builds.look
    monkeypatch.setattr(bench.health._builds, "look", lambda id_: looked.append(id_) or look(id_))  # type: ignore[func-returns-value]
    for number in range(3):
        time.sleep(0.05)
        bench.health.step()
        assert len(read) <= number + 1 >= len(looked), "a step has time for one entry only"
    bench.until(lambda: len(read) == 4, bench.health.step)
    assert len({*read}) == 4, "each has its turn"
    monkeypatch.setattr(health, "STEP_BUDGET", 100.0)
    bench.until(lambda: set(read) == set(ids), bench.health.step)
    for _ in range(5):
        bench.health.step()
    assert sorted(read) == ids
    bench.backend.gate.set()
    bench.wait_for(*ids)
