"""A finished submission runs once more when the operator says so. Its former holders can no longer answer it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from spoold.config import ExecutorSettings
from spoold.host import fsops
from spoold.model.errors import LeaseLostError, OperatorError
from spoold.model.ids import Entry
from spoold.model.states import State
from spoold.spool.lease import Lease
from spoold.upkeep.requeue import requeue
from tests.actors.bench import Bench, settings_for
from tests.names import mine, named, result_named


def test_it_runs_once_more_and_has_one_answer(bench: Bench, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    bench.drop("a", f"test -e {marker}")
    bench.wait_for("a")
    assert bench.response("a")["status"] == "RUN_FAILED"
    bench.assert_nothing_is_left()  # the slot is through, so it removes no side file of the next run
    marker.touch()
    requeue(bench.spool, "a")
    assert (bench.progress("a"), bench.names("done")) == ("pending", set())
    bench.wait_for("a")
    assert bench.response("a")["status"] == "COMPLETED"
    marker.unlink()
    bench.assert_nothing_is_left()


def test_what_was_cancelled_or_given_up_runs_after_all(bench: Bench) -> None:
    bench.sandbox.failures = 3
    bench.drop("a")
    bench.wait_for("a")
    assert bench.response("a")["status"] == "INTERNAL_ERROR"
    bench.drop("b")
    (bench.root / "incoming" / "b.cancel").write_text("b")
    bench.until(lambda: bench.has("done", "b.response.json"), bench.intake.step)
    for id_ in ("a", "b"):
        requeue(bench.spool, id_)
    bench.wait_for("a", "b")
    assert {bench.response(id_)["status"] for id_ in ("a", "b")} == {"COMPLETED"}
    bench.assert_nothing_is_left()


def test_what_cannot_be_requeued_is_said(bench: Bench) -> None:
    bench.drop("waits")
    bench.drop_bytes("refused", b"[]")
    (bench.root / "done" / "bad.json").write_bytes(b"{")
    for id_, said in {"nobody": "no such", "waits": "new/", "refused": "refused", "bad": "check"}.items():
        with pytest.raises(OperatorError, match=said):
            requeue(bench.spool, id_)
    assert bench.has("done", "refused.response.json")


def test_a_crash_on_the_way_is_mended_by_doing_it_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Died(BaseException):
        """The process is killed at this point."""

    def die(*_: object) -> None:
        raise Died

    bench.drop("a")
    bench.wait_for("a")
    bench.assert_nothing_is_left()  # the slot is through, so it does not die with this process
    for point in ("remove", "replace", "move"):
        with monkeypatch.context() as patched:
            patched.setattr(fsops, point, die)
            with pytest.raises(Died):
                requeue(bench.spool, "a")
        bench.health.step()
        assert bench.spool.queue.locate("a") == ("done", Entry("a", 1))
    requeue(bench.spool, "a")
    bench.wait_for("a")
    assert bench.response("a")["status"] == "COMPLETED"
    bench.assert_nothing_is_left()


def test_a_holder_that_slept_through_it_cannot_answer(tmp_path: Path) -> None:
    """An executor hangs in its first attempt until the id has a second life, with the same names as the first."""
    bench = Bench(tmp_path, settings_for(tmp_path, executor=ExecutorSettings(slots=1)))
    try:
        bench.drop("warm")
        bench.wait_for("warm")
        bench.sandbox.gate.clear()
        bench.drop("a")
        bench.until(lambda: bench.executor._slots._heartbeat._held, bench.executor.step)
        bench.executor._slots._heartbeat.stop()  # as if it hung
        lease = next(iter(bench.executor._slots._heartbeat._held))
        (bench.root / "incoming" / "a.cancel").write_text("a")
        bench.until(lambda: bench.has("done", "a.response.json"), bench.intake.step)
        requeue(bench.spool, "a")
        bench.spool.queue.claim(mine("a"), State.NEW, State.RUNNING)  # as another executor would
        bench.sandbox.gate.set()
        bench.until(lambda: not bench.executor._slots._heartbeat._held, lambda: None)
        assert lease.lost
        assert bench.names("running") == {named("a")}
        assert not bench.has("done", "a.response.json")
    finally:
        bench.close()


def test_a_lease_is_on_a_file_and_not_on_a_name(bench: Bench) -> None:
    path = bench.root / "running" / named("a")
    path.write_bytes(b"first")
    lease = Lease(str(path))
    lease.renew()
    lease.check()
    path.unlink()
    path.write_bytes(b"second")
    os.utime(path, (1, 1))
    with pytest.raises(LeaseLostError):
        lease.check()
    lease.renew()
    assert (lease.lost, path.stat().st_mtime) == (True, 1.0)
    lease.close()
    with pytest.raises(LeaseLostError):
        Lease(str(bench.root / "running" / "nothing"))


def test_tidying_removes_nothing_of_the_next_life(bench: Bench) -> None:
    queue = bench.spool.queue
    bench.drop("a")
    queue.claim(mine("a"), State.NEW, State.RUNNING)
    queue.results.commit(mine("a"), State.RUNNING, b"first", tidy=False)
    requeue(bench.spool, "a")
    (bench.root / "tmp" / result_named("a")).write_bytes(b"second")
    queue.results.tidy()
    assert bench.has("tmp", result_named("a"))


def test_two_operators_at_once(bench: Bench) -> None:
    bench.drop("a")
    bench.wait_for("a")
    failed: list[OperatorError] = []

    def go() -> None:
        try:
            requeue(bench.spool, "a")
        except OperatorError as error:
            failed.append(error)

    threads = [threading.Thread(target=go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) == 7
    assert (bench.names("new"), bench.names("done")) == ({named("a")}, set())
