"""Bad or large files in the Build store end no daemon, and delay nobody else."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from spoold.actors import health
from spoold.actors.builder import Builder
from spoold.actors.health import Health
from spoold.host import fsops
from spoold.model import ids
from spoold.model.collection import Order
from spoold.model.errors import OperatorError
from spoold.model.ids import Entry
from spoold.model.job import BuildResult
from spoold.model.response import Outcome, Phase
from spoold.model.states import State
from spoold.model.submission import Dependencies
from spoold.spool.builds import BuildStore
from spoold.spool.orders import Orders
from tests.actors.bench import Bench
from tests.standins import PlainBackend, store_path

MIB = 1 << 20


def record(builds: BuildStore, build_id: str, log: str = "", *, good: bool = True) -> None:
    """Store the result of a build. A failure is kept for a long time."""
    builds.request(Dependencies(build_id=build_id, expression=build_id, nixpkgs=store_path("nixpkgs")))
    builds.queue.claim(Entry(build_id, 1), State.NEW, State.BUILDING)
    result = BuildResult(phase=Phase(stderr=log, outcome=Outcome.OK), shell=store_path("x") if good else "")
    builds.finish(Entry(build_id, 1), result, 0.0 if good else time.time() + 1e6)


def everyone(bench: Bench) -> None:
    bench.step()
    bench.let_leases_run_out("building")  # submissions that wait for a build that exists nowhere are put back
    bench.health.step()


def test_a_result_that_cannot_be_read_is_set_aside_and_built_again(bench: Bench) -> None:
    bench.drop("first", expression="x")
    bench.wait_for("first")
    (build_id,) = bench.builds.finished()
    path = bench.root / "builds/done" / ids.response_name(build_id)
    path.chmod(0o600)
    path.write_bytes(b'{"build_id"')
    bench.drop("second", expression="x")
    bench.until(lambda: bench.has("done", "second.response.json"), lambda: everyone(bench))
    assert bench.response("second")["status"] == "COMPLETED"
    assert bench.backend.built == [build_id, build_id]
    (kept,) = (name for name in bench.names("quarantine") if name.endswith(".bytes"))
    assert (bench.root / "quarantine" / kept).read_bytes() == b'{"build_id"'


def test_what_others_built_is_not_held_in_memory(bench: Bench) -> None:
    for number in range(30):
        record(bench.builds, f"{number:064x}", log="x" * MIB)
    health = Health(bench.settings)
    tracemalloc.start()
    try:
        health.step()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * MIB


def test_a_good_result_is_read_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    record(bench.builds, "0" * 64)
    bench.health.step()
    read: list[str] = []
    plain = fsops.read
    monkeypatch.setattr(fsops, "read", lambda path, most: read.append(path) or plain(path, most))  # type: ignore[func-returns-value]
    bench.health.step()
    assert not [path for path in read if "builds/done" in path]


def test_a_result_of_a_failed_build_is_read_once_and_in_parts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log may be as long as the submission's owner likes."""
    build_ids = {f"{number:064x}" for number in range(5)}
    for build_id in build_ids:
        record(bench.builds, build_id, good=False)
    read: list[str] = []
    plain = bench.health._builds.result
    monkeypatch.setattr(bench.health._builds, "result", lambda id_: read.append(id_) or plain(id_))  # type: ignore[func-returns-value]
    monkeypatch.setattr(health, "STEP_BUDGET", -1.0)
    for number in range(5):
        bench.health.step()
        assert len(read) == number + 1, "a step has time for one result only"
    bench.health.step()
    assert set(read) == build_ids
    assert len(read) == 5
    later = msgspec.structs.replace(bench.settings.builder, failure_memory=-1e9)
    bench.health.apply_settings(msgspec.structs.replace(bench.settings, builder=later))
    bench.health.step()
    assert not bench.names("builds/done")
    assert len(read) == 5


def test_a_list_for_one_user_reads_what_he_used(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        record(bench.builds, f"{number:064x}")
    bench.builds.uses.note("1".zfill(64), 1001)
    read: list[str] = []
    plain = fsops.read
    monkeypatch.setattr(fsops, "read", lambda path, most: read.append(path) or plain(path, most))  # type: ignore[func-returns-value]
    bench.builds.packages(1001)
    assert [Path(path).name for path in read] == [ids.response_name("1".zfill(64))]


def test_a_runtime_that_cannot_be_read_is_provided_anew(bench: Bench) -> None:
    (bench.root / "builds/runtime.json").write_bytes(b"{}")
    bench.drop("waits")
    bench.executor.step()
    bench.health.step()
    builder = Builder(bench.settings, PlainBackend())
    builder.start()
    builder.stop()
    bench.wait_for("waits")


def test_pins_that_cannot_be_read_are_the_operators_to_mend(bench: Bench) -> None:
    (bench.root / "builds/pins.json").write_bytes(b"24.11 = /srv/nixpkgs")
    with pytest.raises(OperatorError, match=r"builds/pins.json cannot be read: .*; mend it, or remove it"):
        Builder(bench.settings, PlainBackend()).start()


def test_a_bug_in_a_collection_is_an_answer_and_in_the_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(bench.backend, "sizes", fails)
    bench.builds.orders.file("test", Order())
    bench.until(lambda: bench.builds.orders.report("test"), bench.builder.step)
    report = bench.builds.orders.report("test")
    assert report is not None
    assert "on purpose" in report.error
    assert any(entry.exc_info for entry in caplog.records)


def test_a_bug_in_the_builders_background_is_in_the_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(Orders, "waiting", fails)
    bench.builder.step()
    bench.until(lambda: any(entry.exc_info for entry in caplog.records), lambda: None)


def test_a_bug_around_a_build_is_in_the_log_and_frees_its_place(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    with monkeypatch.context() as patched:
        patched.setattr(bench.builder._work, "_hold", fails)
        bench.drop("x", expression="x")
        bench.until(lambda: any(entry.exc_info for entry in caplog.records))
    bench.let_leases_run_out("builds/building")
    bench.until(lambda: bench.has("done", "x.response.json"), lambda: everyone(bench))


def test_a_build_alone_is_answered_when_it_is_there(bench: Bench) -> None:
    asked = json.dumps({"kind": "build", "files": [{"name": "cutor.nix", "content": "# a"}]}).encode()
    bench.backend.gate.clear()
    bench.drop_bytes("ahead", asked)
    bench.until(lambda: bench.progress("ahead") == "INSTALLING_DEPENDENCIES")
    bench.backend.gate.set()
    bench.wait_for("ahead")
    first = bench.response("ahead")
    assert (first["status"], first["dependencies"]["outcome"]) == ("COMPLETED", "ok")
    assert not first["dependencies"]["cached"]
    assert [first[phase]["outcome"] for phase in ("compile", "run")] == ["skipped", "skipped"]
    bench.drop_bytes("again", asked)
    bench.wait_for("again")
    again = bench.response("again")
    assert again["dependencies"]["cached"]
    assert again["build_id"] == first["build_id"]
    bench.drop("runs", expression="# a")
    bench.wait_for("runs")
    assert len(bench.backend.built) == 1
    assert len(bench.sandbox.jobs) == 1, "only the submission that asks for a run is run"
    assert bench.builds.uses.last(os.geteuid()).keys() == {first["build_id"]}
    bench.assert_nothing_is_left()


def test_a_build_alone_that_fails_says_why(bench: Bench) -> None:
    bench.drop_bytes("ahead", b'{"kind": "build", "files": [{"name": "cutor.nix", "content": "broken"}]}')
    bench.wait_for("ahead")
    response = bench.response("ahead")
    assert response["status"] == "DEPENDENCIES_FAILED"
    assert "undefined variable" in response["dependencies"]["stderr"]
    assert "build_id" not in response


def test_a_build_alone_holds_no_slot(bench: Bench) -> None:
    """It is answered while all slots are in use."""
    bench.sandbox.gate.clear()
    bench.drop("a")
    bench.drop("b")
    bench.until(lambda: len(bench.names("running")) == 2)
    bench.drop_bytes("ahead", b'{"kind": "build", "files": [{"name": "cutor.nix", "content": "# a"}]}')
    bench.wait_for("ahead")
    assert bench.response("ahead")["status"] == "COMPLETED"
    bench.sandbox.gate.set()
    bench.wait_for("a", "b")
