"""The owner or the operator can cancel a submission in any state, and nobody else can. It has one answer."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoold.actors.intake import Intake
from spoold.actors.intake.dropbox import DropBox
from spoold.actors.intake.sought import Sought
from spoold.config import LeaseSettings
from spoold.host import fsops
from spoold.model.errors import LeaseLostError
from spoold.model.ids import Hint
from spoold.model.job import BuildResult
from spoold.spool.owned import OwnedQueue
from spoold.spool.results import Results
from spoold.spool.store import Spool
from spoold.upkeep import cancel as cancelling
from spoold.upkeep.floor import Floor
from tests.actors.bench import PATIENCE, Bench
from tests.names import mine, named
from tests.rights import assert_answer
from tests.standins import SetClock

OWNER, OTHER = 65534, 65533
PATIENT = {phase: {"time": 300} for phase in ("compile", "run")}  # for runs that only the test ends


def ask(bench: Bench, id_: str, uid: int | None = None, word: str = "") -> Path:
    path = bench.root / "incoming" / f"{id_}{word}.cancel"
    path.write_text(f"{id_}\n")
    if uid is not None:
        os.chown(path, uid, uid)
    return path


def bring(bench: Bench, state: str) -> None:
    """Bring a submission ``a`` into ``state``."""
    if state == "running":
        bench.drop("warm")
        bench.wait_for("warm")
        bench.sandbox.gate.clear()
    bench.backend.gate.clear()
    bench.put(OWNER, "a")
    bench.intake.step()
    if state != "new":
        bench.until(lambda: bench.names(state), bench.executor.step)
    assert bench.names(state) == {named("a", owner=OWNER)}


def be_patient(bench: Bench) -> None:
    """Let intake wait for the executor's report, however slow the machine is."""
    bench.intake._cancels._canceller._wishes.patience = PATIENCE


def be_deaf(bench: Bench) -> None:
    """Keep the executor from learning what happens to its entries, as if it hung."""
    bench.executor._slots._heartbeat.stop()


def outcomes(response: dict[str, Any]) -> list[str]:
    return [response[phase]["outcome"] for phase in ("dependencies", "compile", "run")]


def begin(bench: Bench, tmp_path: Path, **keys: Any) -> None:
    """Let a submission ``a`` run a script that prints and then runs on for ever."""
    began = tmp_path / "began"
    bench.drop("a", f"echo some; echo more >&2; touch {began}; sleep 600", limits=PATIENT, **keys)
    bench.until(began.exists)


def end(bench: Bench) -> None:
    bench.until(lambda: bench.names("incoming") == set(), bench.intake.step)
    bench.sandbox.gate.set()
    bench.backend.gate.set()
    bench.until(lambda: bench.executor._slots._heartbeat._held == set())
    bench.until(lambda: bench.names("progress") == set(), bench.health.step)
    bench.until(lambda: not (bench.names("builds/new") | bench.names("builds/building")))
    bench.assert_nothing_is_left()


@pytest.mark.parametrize("uid", [OWNER, 0])
@pytest.mark.parametrize("state", ["new", "building", "running"])
def test_it_is_cancelled_in_any_state(bench: Bench, state: str, uid: int) -> None:
    bring(bench, state)
    ask(bench, "a", uid)
    bench.intake.step([Hint("incoming", "a.cancel")])
    bench.until(lambda: bench.names("incoming") == set(), bench.intake.step)
    response = bench.response("a")
    assert response["status"] == "CANCELLED"
    so_far = {"new": "skipped", "building": "cancelled", "running": "ok"}[state]
    assert outcomes(response) == [so_far, "skipped", "skipped"]
    assert_answer(bench.root / "done" / "a.response.json", OWNER)
    assert bench.names("incoming") == set()
    end(bench)
    assert bench.response("a") == response


def test_a_running_job_is_stopped_by_the_next_renewal(bench: Bench) -> None:
    bring(bench, "running")
    ask(bench, "a", OWNER)
    bench.intake.step()
    bench.until(lambda: bench.executor._slots._heartbeat._held == set(), lambda: None)  # the gate is still closed
    end(bench)


@pytest.mark.parametrize("word", ["", "@abcdefgh"])
def test_what_a_running_job_came_to_is_told(bench: Bench, tmp_path: Path, word: str) -> None:
    be_patient(bench)
    begin(bench, tmp_path, files=[{"name": "compile.sh", "content": "echo made"}])
    ask(bench, "a", word=word)
    bench.until(lambda: bench.has("done", "a.response.json"), bench.intake.step)
    response = bench.response("a")
    assert (response["status"], "notes" in response) == ("CANCELLED", False)
    assert outcomes(response) == ["ok", "ok", "cancelled"]
    assert response["compile"]["stdout"] == "made\n"
    run = response["run"]
    assert (run["stdout"], run["stderr"], run["signal"], run["exit_code"]) == ("some\n", "more\n", "SIGKILL", None)
    assert run["time"] > 0
    end(bench)
    assert bench.response("a") == response


def test_a_compilation_that_is_cancelled_is_told(bench: Bench, tmp_path: Path) -> None:
    be_patient(bench)
    began = tmp_path / "began"
    script = f"echo making; touch {began}; sleep 600"
    bench.drop("a", files=[{"name": "compile.sh", "content": script}], limits=PATIENT)
    bench.until(began.exists)
    ask(bench, "a")
    bench.until(lambda: bench.has("done", "a.response.json"), bench.intake.step)
    assert outcomes(bench.response("a")) == ["ok", "cancelled", "skipped"]
    assert bench.response("a")["compile"]["stdout"] == "making\n"
    end(bench)


def test_an_executor_that_does_not_answer_is_waited_for_as_long_as_the_spec_says(bench: Bench, tmp_path: Path) -> None:
    begin(bench, tmp_path)
    be_deaf(bench)
    clock = SetClock()
    wishes = bench.intake._cancels._canceller._wishes
    wishes.patience, wishes._clock = 2 * LeaseSettings().renewal, clock
    ask(bench, "a")
    for _ in range(3):
        bench.intake.step()
        clock.pass_time(3.3)
        assert bench.names("running") == {named("a")}
        assert bench.names("incoming") == {"a.cancel"}
    clock.pass_time(0.2)
    bench.intake.step()
    response = bench.response("a")
    assert (response["status"], outcomes(response)) == ("CANCELLED", ["ok", "skipped", "skipped"])
    assert response["notes"] == ["it is unknown what ran: the executor did not answer within 10 s of the cancel"]
    for lease in bench.executor._slots._heartbeat._held:
        lease.stop.set()  # the report comes too late
    end(bench)
    assert bench.response("a") == response


def test_a_result_that_comes_first_counts(bench: Bench) -> None:
    bring(bench, "running")
    be_patient(bench)
    be_deaf(bench)
    ask(bench, "a", OWNER)
    bench.intake.step()
    assert bench.names("running") == {named("a", owner=OWNER)}
    bench.sandbox.gate.set()
    bench.wait_for("a")
    assert bench.response("a")["status"] == "COMPLETED"
    end(bench)


def test_many_cancels_are_one(bench: Bench, tmp_path: Path) -> None:
    be_patient(bench)
    begin(bench, tmp_path)
    for word in ("", "@abcdefgh", "@bcdefghi"):
        ask(bench, "a", word=word)
    bench.until(lambda: bench.names("incoming") == set(), bench.intake.step)
    assert outcomes(bench.response("a")) == ["ok", "skipped", "cancelled"]
    ask(bench, "a")
    end(bench)
    assert bench.response("a")["run"]["stdout"] == "some\n"


def test_what_is_put_back_meanwhile_is_cancelled_there(bench: Bench, tmp_path: Path) -> None:
    be_patient(bench)
    begin(bench, tmp_path)
    be_deaf(bench)
    ask(bench, "a")
    bench.intake.step()
    bench.executor.hurry()
    bench.until(lambda: bench.names("new") == {named("a")}, lambda: None)
    bench.intake.step()
    assert outcomes(bench.response("a")) == ["skipped", "skipped", "skipped"]
    end(bench)


def test_whoever_has_the_next_attempt_is_asked_as_well(bench: Bench, tmp_path: Path) -> None:
    be_patient(bench)
    begin(bench, tmp_path)
    be_deaf(bench)
    ask(bench, "a")
    bench.intake.step()
    (tmp_path / "began").unlink()
    # like health when the executor is dead
    (bench.root / "running" / named("a")).rename(bench.root / "new" / named("a", 2))
    other = bench.new_executor()
    try:
        bench.until((tmp_path / "began").exists, other.step)
        bench.until(lambda: bench.has("done", "a.response.json"), lambda: None)
    finally:
        other.stop()
    assert outcomes(bench.response("a")) == ["ok", "skipped", "cancelled"]
    for lease in bench.executor._slots._heartbeat._held:
        lease.stop.set()
    end(bench)
    assert outcomes(bench.response("a")) == ["ok", "skipped", "cancelled"]


def test_after_a_restart_of_intake_the_executor_has_its_time_again(bench: Bench, tmp_path: Path) -> None:
    be_patient(bench)
    begin(bench, tmp_path)
    be_deaf(bench)
    ask(bench, "a")
    bench.intake.step()
    bench.intake = Intake(bench.settings)
    bench.intake.start()
    assert bench.names("tmp") == {"a.cancel"}
    bench.until(lambda: bench.names("incoming") == set(), bench.intake.step)
    assert bench.response("a")["status"] == "CANCELLED"
    for lease in bench.executor._slots._heartbeat._held:
        lease.stop.set()
    end(bench)


def test_what_an_earlier_use_of_the_id_left_asks_for_nothing(bench: Bench, tmp_path: Path) -> None:
    (bench.root / "tmp" / "a.cancel").write_bytes(b"another file")
    begin(bench, tmp_path)
    before = (bench.root / "running" / named("a")).stat().st_mtime_ns
    for _ in range(3):  # wait for three renewals
        bench.until(lambda then=before: (bench.root / "running" / named("a")).stat().st_mtime_ns > then, lambda: None)  # type: ignore[misc] # mypy cannot infer it
        before = (bench.root / "running" / named("a")).stat().st_mtime_ns
    be_patient(bench)
    ask(bench, "a")
    bench.until(lambda: bench.names("incoming") == set(), bench.intake.step)
    assert outcomes(bench.response("a")) == ["ok", "skipped", "cancelled"]
    end(bench)


def test_where_nobody_can_be_asked_it_is_cancelled_all_the_same(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    be_patient(bench)
    begin(bench, tmp_path)
    monkeypatch.setattr(OwnedQueue, "ask_to_end", full)
    ask(bench, "a")
    bench.intake.step()
    assert outcomes(bench.response("a")) == ["ok", "skipped", "skipped"]
    end(bench)


def test_while_it_waits_for_its_build_the_dependencies_are_cancelled(bench: Bench) -> None:
    bring(bench, "building")
    ask(bench, "a", OWNER)
    bench.intake.step()
    dependencies = bench.response("a")["dependencies"]
    assert 0 <= dependencies.pop("time") < PATIENCE
    assert dependencies == {
        "stdout": "",
        "stderr": "",
        "signal": "",
        "outcome": "cancelled",
        "exit_code": None,
        "stdout_bytes": 0,
        "stdout_truncated": False,
        "stdout_encoding": "utf8",
        "stderr_bytes": 0,
        "stderr_truncated": False,
        "stderr_encoding": "utf8",
        "cached": False,
    }
    bench.backend.gate.set()
    bench.until(bench.builds.finished)  # the build goes on for others
    end(bench)


@pytest.mark.parametrize("long", [False, True])
def test_a_build_that_has_ended_is_told_in_short(bench: Bench, monkeypatch: pytest.MonkeyPatch, *, long: bool) -> None:
    """This holds however long the build's log is. No room in the owner's share is needed."""
    if long:
        build = bench.backend.build

        def talk(*arguments: Any) -> BuildResult:
            made = build(*arguments)
            return msgspec.structs.replace(made, phase=msgspec.structs.replace(made.phase, stderr="x" * 100_000))

        monkeypatch.setattr(bench.backend, "build", talk)
    bring(bench, "building")
    bench.backend.gate.set()
    bench.until(bench.builds.finished, bench.builder.step)
    assert bench.names("building") == {named("a", owner=OWNER)}
    ask(bench, "a", OWNER)
    bench.intake.step()
    response = bench.response("a")
    assert (response["status"], outcomes(response)) == ("CANCELLED", ["ok", "skipped", "skipped"])
    assert response["dependencies"]["stderr"] == ("x" * 4096 if long else "")
    assert response["dependencies"]["stderr_truncated"] == long
    end(bench)


def test_one_that_lies_in_the_drop_box_still_is_waited_for(bench: Bench) -> None:
    ask(bench, "a", OWNER)
    bench.intake.step()
    path = bench.root / "incoming" / "a.json"
    path.write_bytes(b'{"files": [')
    os.chown(path, OWNER, OWNER)
    began = time.monotonic()
    while time.monotonic() - began < 3 * bench.settings.spool.settle:
        path.write_bytes(path.read_bytes() + b" ")
        bench.intake.step()
    assert bench.names("incoming") == {"a.json", "a.cancel"}
    bench.put(OWNER, "a")
    bench.until(lambda: bench.has("done", "a.response.json"), bench.intake.step)
    assert bench.response("a")["status"] == "CANCELLED"
    bench.assert_nothing_is_left()


@pytest.mark.parametrize("uid", [OWNER, 0])
def test_nobody_can_hold_all_names_of_a_cancel(bench: Bench, uid: int) -> None:
    """Another user takes the usual name again and again."""
    bring(bench, "new")
    ask(bench, "a", OTHER)
    ask(bench, "a", OTHER, "@01234567")
    ask(bench, "a", uid, "@nobody_knows")
    bench.intake.step()
    assert bench.response("a")["status"] == "CANCELLED"
    assert bench.names("incoming") == {"a.cancel", "a@01234567.cancel"}
    bench.until(lambda: bench.names("incoming") == set(), bench.intake.step)


def test_it_waits_for_a_submission_whatever_name_that_has(bench: Bench) -> None:
    path = bench.root / "incoming" / "a@klmnopqrst.json"
    path.write_bytes(b'{"files": [')
    os.chown(path, OWNER, OWNER)
    ask(bench, "a", OWNER, "@abcdefgh")
    began = time.monotonic()
    while time.monotonic() - began < 3 * bench.settings.spool.settle:
        path.write_bytes(path.read_bytes() + b" ")
        bench.intake.step()
    assert bench.names("incoming") == {path.name, "a@abcdefgh.cancel"}
    path.write_bytes(b'{"files": [{"name": "run.sh", "content": "echo hi"}]}')
    bench.until(lambda: bench.has("done", "a.response.json"), bench.intake.step)
    assert bench.response("a")["status"] == "CANCELLED"
    bench.until(lambda: bench.names("incoming") == set(), bench.intake.step)


def test_files_of_others_that_ask_for_the_same_id_hide_none_of_its_owners() -> None:
    owners = {"a@01234567.json": 1, "a@12345678.json": 2, "b.json": 1}
    sought = Sought(owners.get)
    assert sought.may_lie("a", 3), "unknown before the first look"
    sought.begin()
    for name in owners:
        sought.meet(name)
    sought.end()
    assert [sought.may_lie("a", uid) for uid in (1, 2, 3)] == [True, True, False]
    del owners["a@01234567.json"]
    assert not sought.may_lie("a", 1)
    sought.begin()
    sought.begin()
    assert not sought._asked, "an id that is not asked for again is forgotten"


def test_it_goes_when_the_submission_that_it_waited_for_is_gone(bench: Bench) -> None:
    path = bench.root / "incoming" / "a@klmnopqrst.json"
    path.write_bytes(b"{")
    os.chown(path, OWNER, OWNER)
    ask(bench, "a", OWNER)
    for _ in range(3):
        path.write_bytes(path.read_bytes() + b" ")  # the upload goes on, however long these steps take
        bench.intake.step()
    assert len(bench.names("incoming")) == 2
    path.unlink()
    bench.until(lambda: bench.names("incoming") == set(), bench.intake.step)


@pytest.mark.parametrize("state", ["new", "building", "running"])
def test_for_a_cancel_of_a_strangers_no_entry_is_read(
    bench: Bench, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry may be large, and intake may look at a cancel of it again and again."""
    bring(bench, state)
    read: list[str] = []
    monkeypatch.setattr(bench.intake._spool, "read", lambda *_: read.append("read"))
    path = ask(bench, "a", OTHER)
    bench.until(lambda: not path.exists(), bench.intake.step)
    assert read == []


def test_after_the_commit_it_does_nothing(bench: Bench) -> None:
    bench.drop("a")
    bench.wait_for("a")
    ask(bench, "a")
    bench.intake.step()
    assert bench.response("a")["status"] == "COMPLETED"
    bench.assert_nothing_is_left()


def test_of_anothers_submission_it_tells_no_more_than_of_an_unknown_id(bench: Bench) -> None:
    bring(bench, "new")
    bench.drop("done")
    bench.until(lambda: bench.has("incoming", "done.json") is False, bench.intake.step)
    for id_ in ("a", "nobody", "done"):
        ask(bench, id_, OTHER)
    bench.intake.step()
    assert bench.names("incoming") == {"a.cancel", "nobody.cancel", "done.cancel"}
    time.sleep(bench.settings.spool.settle)
    bench.intake.step()
    assert bench.names("incoming") == set()
    assert {named("a", owner=OWNER), named("done")} <= bench.names("new")
    assert bench.names("quarantine") == set()


@pytest.mark.parametrize("content", ["", "b", "a b", "A", "a\nb", "\na", "aa"])
def test_a_name_alone_says_nothing_of_what_its_owner_wants(bench: Bench, content: str) -> None:
    """A rename keeps the owner. If a user moves an empty file of root's here, root has not cancelled anything."""
    bring(bench, "new")
    path = ask(bench, "a", 0)
    path.write_text(content)
    bench.until(lambda: bench.names("incoming") == set(), bench.intake.step)
    assert bench.names("new") == {named("a", owner=OWNER)}


@pytest.mark.parametrize("content", ["a", "a\n", "a\r\n"])
def test_the_content_is_the_id_with_or_without_a_line_end(bench: Bench, content: str) -> None:
    bring(bench, "new")
    ask(bench, "a", OWNER).write_text(content)
    bench.intake.step()
    assert bench.response("a")["status"] == "CANCELLED"


def test_one_that_is_written_slowly_counts_when_it_is_whole(bench: Bench) -> None:
    bring(bench, "new")
    path = ask(bench, "a", OWNER)
    path.write_text("")
    bench.intake.step()
    path.write_text("a")
    bench.intake.step()
    assert bench.response("a")["status"] == "CANCELLED"


def test_one_that_does_nothing_goes_however_often_it_is_touched(bench: Bench) -> None:
    """Otherwise another user could keep the owner's own file out for ever."""
    bring(bench, "new")
    path = ask(bench, "a", OTHER)

    def step() -> None:
        if path.exists():
            path.touch()
        bench.intake.step()

    bench.until(lambda: not path.exists(), step)
    ask(bench, "a", OWNER)
    bench.intake.step()
    assert bench.response("a")["status"] == "CANCELLED"


def test_what_is_no_plain_file_does_nothing(bench: Bench) -> None:
    path = bench.root / "incoming" / "a.cancel"
    victim = bench.root / "victim"
    victim.write_text("a")
    os.chown(victim, OWNER, OWNER)

    def listen() -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))

    makers: list[Callable[[], None]] = [
        lambda: path.symlink_to(victim),
        lambda: os.link(victim, path),
        lambda: os.mkfifo(path),
        listen,
        path.mkdir,
    ]
    bring(bench, "new")
    for make in makers:
        make()
        os.lchown(path, OWNER, OWNER)
        bench.until(lambda: not os.path.lexists(path), bench.intake.step)
        assert bench.names("new") == {named("a", owner=OWNER)}
    assert victim.exists()
    assert bench.names("incoming") == set()


class Died(BaseException):
    """The process is killed at this point."""


@pytest.mark.parametrize("state", ["new", "building", "running"])
@pytest.mark.parametrize("point", ["taken", "written", "committed", "published"])
def test_a_crash_at_any_point_is_mended_when_intake_starts(
    bench: Bench, state: str, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise Died

    bring(bench, state)
    be_deaf(bench)
    cancel_file = ask(bench, "a", OWNER)
    with monkeypatch.context() as patched:
        if point == "taken":
            patched.setattr(cancelling, "end", die)
        elif point == "written":
            move = fsops.move
            patched.setattr(fsops, "move", lambda old, new: die() if "/done/" in new else move(old, new))
        elif point == "committed":
            patched.setattr(Results, "_link", die)
        else:
            patched.setattr(DropBox, "remove", die)
        with pytest.raises(Died):
            bench.until(lambda: False, bench.intake.step)
    bench.let_leases_run_out("running")
    for _ in range(3):
        bench.health.step()  # must not take it for a lost attempt
        time.sleep(2 * bench.settings.lease.renewal)  # an owner that lives would have renewed by now
    if point in ("taken", "written"):
        assert bench.names("running") == {named("a", 9999, owner=OWNER)}
        cancel_file.unlink()  # it goes on even if its owner changes their mind
    bench.intake = Intake(bench.settings)
    bench.intake.start()
    assert bench.response("a")["status"] == "CANCELLED"
    bench.intake.step()
    end(bench)


def test_of_commit_and_cancel_one_wins(bench: Bench) -> None:
    """Both use the same names at once, many times. Each submission gets one answer, and its content is whole."""
    names = [f"a{number}" for number in range(40)]
    for name in names:
        bench.drop(name)
    stop = threading.Event()

    def cancel_all() -> None:
        while not stop.is_set():
            for name in names:
                ask(bench, name)
            bench.intake.step()

    asking = threading.Thread(target=cancel_all)
    asking.start()
    try:
        bench.wait_for(*names)
    finally:
        stop.set()
        asking.join()
    assert {bench.response(name)["status"] for name in names} <= {"CANCELLED", "COMPLETED"}
    bench.until(lambda: bench.names("incoming") == set(), bench.intake.step)
    end(bench)


def test_an_unreadable_entry_is_not_cancelled_for_anyone(bench: Bench) -> None:
    (bench.root / "new" / named("a", owner=OWNER)).write_bytes(b"{")
    ask(bench, "a", OWNER)
    bench.until(lambda: bench.names("incoming") == set(), bench.intake.step)
    assert bench.names("new") == {named("a", owner=OWNER)}


@pytest.mark.parametrize("step", ["read", "finish"])
def test_what_somebody_else_has_answered_meanwhile_is_answered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """`spoolctl check --repair` also answers, where an entry cannot be read. Intake goes on."""
    bring(bench, "new")

    def lost(*_: object, **__: object) -> None:
        raise LeaseLostError("somebody else has it")

    with monkeypatch.context() as patched:
        patched.setattr(Spool, step, lost)
        (bench.root / "new" / named("a", owner=OWNER)).rename(bench.root / "running" / named("a", 9999, owner=OWNER))
        bench.intake.step()
        ask(bench, "a", OWNER)
        if step == "finish":
            bench.intake.step()
    bench.intake.step()
    assert bench.response("a")["status"] == "CANCELLED"


def test_a_full_disk_leaves_the_answer_for_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bring(bench, "new")
    ask(bench, "a", OWNER)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Results, "commit", full)
        bench.intake.step()
        bench.intake.step()
    assert bench.spool.queue.locate("a") == ("running", mine("a", 9999, owner=OWNER))
    bench.intake.step()
    assert bench.response("a")["status"] == "CANCELLED"
    end(bench)


def test_it_goes_through_while_the_disk_is_below_its_floor(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Intake takes no submissions then, but a job that ends makes room."""
    bring(bench, "running")
    monkeypatch.setattr(Floor, "reached", lambda _: True)
    (bench.root / "incoming" / "b.json").write_bytes(b'{"files": [{"name": "run.sh", "content": "echo hi"}]}')
    ask(bench, "a")
    bench.intake.step([Hint("incoming", "b.json"), Hint("incoming", "a.cancel")])
    bench.until(lambda: bench.names("incoming") == {"b.json"}, bench.intake.step)
    assert bench.response("a")["status"] == "CANCELLED"
    ask(bench, "nobody")
    bench.until(lambda: bench.names("incoming") == {"b.json"}, bench.intake.step)
    assert bench.names("new") == set()
    monkeypatch.undo()
    bench.sandbox.gate.set()
    bench.backend.gate.set()
    bench.intake.step()
    bench.wait_for("b")
    end(bench)
