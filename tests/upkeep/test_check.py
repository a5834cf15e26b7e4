"""The check names and mends files that no state explains. It never touches what the daemons work on."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import click.testing
import pytest

from spoold.cli import exits
from spoold.cli.ctl import command
from spoold.model.states import State
from spoold.upkeep import check as checking
from spoold.upkeep.check import Check
from spoold.upkeep.repair import repair as carry_out
from spoold.upkeep.unexplained import Action
from tests.actors.bench import Bench
from tests.mounts import in_the_way
from tests.names import mine, named, result_named

BUILD = "0" * 64
OLD = (1.0, 1.0)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(checking, "SECOND_LOOK", 0.05)
    made = Bench(tmp_path)
    yield made
    made.close()


def found(bench: Bench) -> dict[str, Action]:
    return {each.path: each.action for each in Check(bench.settings, "test").unexplained()}


def repair(bench: Bench) -> None:
    check = Check(bench.settings, "test")
    for each in check.unexplained():
        carry_out(check.spool, each)


def put(bench: Bench, path: str, data: bytes = b"{}", *, old: bool = True) -> None:
    (bench.root / path).write_bytes(data)
    if old:
        os.utime(bench.root / path, OLD)


def test_a_spool_at_work_is_explained(bench: Bench) -> None:
    for id_ in ("a", "b"):
        bench.drop(id_)
    bench.wait_for("a", "b")
    bench.until(lambda: not bench.names("tmp"))  # a slot may still have something to tidy up
    bench.drop_bytes("bad", b"[]")
    bench.drop("a", "echo other")
    bench.backend.gate.clear()
    bench.drop("waits", expression="other")
    bench.until(lambda: bench.names("building"))
    bench.sandbox.gate.clear()
    bench.drop("runs")
    bench.until(lambda: bench.names("running"))
    bench.drop("new")
    put(bench, "incoming/.x.tmp", old=False)
    put(bench, "tmp/doctor-12", old=False)
    put(bench, "done/doctor-12", old=False)
    (bench.root / "incoming" / "c.json").touch()
    (bench.root / "incoming" / "a b.json").touch()
    (bench.root / "incoming" / "c.cancel").touch()
    assert found(bench) == {}


def test_returned_files_are_explained_by_what_they_belong_to(bench: Bench) -> None:
    bench.sandbox.gate.clear()
    bench.drop("runs")
    bench.until(lambda: bench.names("running"))
    (name,) = bench.names("running")
    for ending in ("outputs.tar", "response.json"):
        put(bench, f"tmp/{name.removesuffix('.json')}.{ending}")
    assert found(bench) == {}
    put(bench, "done/a.response.json")
    put(bench, "done/a.outputs.tar")
    assert found(bench) == {"done/a.response.json": Action.REMOVE}, "the response goes first, as in retention"
    repair(bench)
    assert found(bench) == {"done/a.outputs.tar": Action.REMOVE}
    repair(bench)
    assert bench.names("done") == set()


@pytest.mark.parametrize(
    ("path", "action"),
    [
        ("lost+found", Action.LEAVE),
        ("incoming/.x.tmp", Action.LEAVE),
        ("new/notes.txt", Action.QUARANTINE),
        ("new/a@1.json", Action.QUARANTINE),
        ("building/a.json", Action.QUARANTINE),
        ("done/notes.txt", Action.QUARANTINE),
        ("done/a@1.json", Action.QUARANTINE),
        ("done/a.response.json", Action.REMOVE),
        ("done/a.outputs.tar", Action.REMOVE),
        ("done/a.outputs.sha256", Action.REMOVE),
        ("done/a.tar", Action.QUARANTINE),
        ("progress/a.json", Action.REMOVE),
        ("progress/notes.txt", Action.QUARANTINE),
        ("ids/a", Action.QUARANTINE),
        ("ids/.notes", Action.QUARANTINE),
        ("tmp/0123456789abcdef.id.json", Action.REMOVE),
        ("tmp/notes.txt", Action.QUARANTINE),
        ("tmp/a.accept.json", Action.REMOVE),
        ("tmp/doctor-12", Action.REMOVE),
        ("tmp/doctor-12.probe", Action.REMOVE),
        ("done/doctor-12", Action.REMOVE),
        ("tmp/a@1.response.json", Action.REMOVE),
        ("tmp/a@1.outputs.tar", Action.REMOVE),
        ("builds/notes.txt", Action.QUARANTINE),
        ("builds/new/a.json", Action.QUARANTINE),
        (f"builds/new/{BUILD}.json", Action.QUARANTINE),
        (f"builds/done/{BUILD}.json", Action.QUARANTINE),
        (f"builds/done/{BUILD}.response.json", Action.QUARANTINE),
        ("builds/done/a.json", Action.QUARANTINE),
        ("builds/tmp/notes.txt", Action.QUARANTINE),
        ("builds/used/notes.txt", Action.QUARANTINE),
        ("builds/collect/notes.txt", Action.QUARANTINE),
    ],
)
def test_what_no_state_explains_is_named_and_mended(bench: Bench, path: str, action: Action) -> None:
    put(bench, path)
    inode = os.stat(bench.root / path).st_ino
    assert found(bench) == {path: action}
    assert (bench.root / path).exists(), "a look changes nothing"
    repair(bench)
    assert (bench.root / path).exists() == (action is Action.LEAVE)
    aside = f"{path.replace('/', '-')}@{inode}"
    wanted = {f"{aside}.bytes", f"{aside}.reason"} if action is Action.QUARANTINE else set()
    assert bench.names("quarantine") == wanted
    assert found(bench) == ({path: action} if action is Action.LEAVE else {})


def test_a_note_of_an_id_that_is_not_in_use_is_removed_when_it_is_old(bench: Bench) -> None:
    bench.drop("waits")
    for id_ in ("gone", "young"):
        (bench.root / "ids" / id_).symlink_to("1001")
    for id_ in ("gone", "waits"):
        os.utime(bench.root / "ids" / id_, OLD, follow_symlinks=False)
    assert found(bench) == {"ids/gone": Action.REMOVE}
    repair(bench)
    assert bench.names("ids") == {"waits", "young"}


@pytest.mark.parametrize("kind", ["directory", "link", "FIFO"])
def test_what_is_no_file_is_set_aside_unopened(bench: Bench, kind: str) -> None:
    path = bench.root / "tmp" / "x.accept"
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/etc/shadow")
    else:
        os.mkfifo(path)
    repair(bench)
    assert not os.path.lexists(path)
    assert len(bench.names("quarantine")) == 2


def test_an_entry_that_cannot_be_read_ends_with_an_answer(bench: Bench) -> None:
    put(bench, "building/a@1.json", b"\0" * 10)
    bench.drop("b")
    os.rename(bench.root / "new" / named("b"), bench.root / "new" / named("c"))
    assert found(bench) == {"building/a@1.json": Action.ANSWER, f"new/{named('c')}": Action.ANSWER}
    repair(bench)
    assert {bench.response(id_)["status"] for id_ in ("a", "c")} == {"INTERNAL_ERROR"}
    me = os.getuid()
    assert (bench.root / "quarantine" / f"a@{me}-1.bytes").read_bytes() == b"\0" * 10
    assert {f"a@{me}-1.reason", f"c@{me}-1.bytes", f"c@{me}-1.reason"} <= bench.names("quarantine")


def test_a_commit_whose_result_is_lost_is_answered_once(bench: Bench) -> None:
    bench.drop("a")
    bench.spool.queue.claim(mine("a"), State.NEW, State.RUNNING)
    os.rename(bench.root / "running" / named("a"), bench.root / "done" / "a.json")
    assert found(bench) == {"done/a.json": Action.ANSWER}
    put(bench, f"tmp/{result_named('a')}", old=False)
    assert found(bench) == {}, "the next process publishes it"
    os.unlink(bench.root / "tmp" / result_named("a"))
    repair(bench)
    assert (bench.response("a")["status"], "again" in bench.response("a")["reason"]) == ("INTERNAL_ERROR", True)
    assert os.stat(bench.root / "done" / "a.response.json").st_mode & 0o777 == 0o400
    bench.until(lambda: not bench.names("progress"), bench.health.step)
    bench.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (f"new/{named('a')}", f"running/{named('a')}"),
        (f"new/{named('a')}", f"building/{named('a')}"),
        (f"running/{named('a')}", f"running/{named('a', 2)}"),
        (f"running/{named('a', 4)}", f"running/{named('a', 5)}"),
        (f"running/{named('a')}", f"running/{named('a', 9999)}"),
        (f"new/{named('a', 2)}", "done/a.json"),
    ],
)
def test_of_two_names_of_a_submission_the_later_state_counts(bench: Bench, first: str, later: str) -> None:
    bench.drop("a")
    data = (bench.root / "new" / named("a")).read_bytes()
    os.unlink(bench.root / "new" / named("a"))
    for path in (first, later):
        put(bench, path, data, old=False)
    put(bench, f"tmp/{result_named('a', 5)}", old=False)
    assert found(bench) == {first: Action.QUARANTINE}
    repair(bench)
    assert bench.has(*later.split("/"))


def test_what_cannot_be_looked_at_is_named_and_ends_no_check(bench: Bench) -> None:
    """A user can mount something over a name of theirs, and then not even root can look at it."""
    bench.drop("a")
    bench.wait_for("a")
    bench.until(lambda: not bench.names("tmp"))  # its private name is removed after the publication
    put(bench, "incoming/.mine")
    put(bench, "progress/a.json")
    put(bench, "new/notes.txt")
    with in_the_way("lstat", errno.EACCES, ".mine", "a.response.json"):
        assert found(bench) == {
            "incoming/.mine": Action.LEAVE,
            "done/a.json": Action.LEAVE,
            "done/a.response.json": Action.LEAVE,
            "progress/a.json": Action.LEAVE,
            "new/notes.txt": Action.QUARANTINE,
        }
        repair(bench)
        bench.health.start()
        bench.health.step()
    assert found(bench) == {"incoming/.mine": Action.LEAVE, "progress/a.json": Action.REMOVE}


def test_a_repair_that_fails_ends_no_other(bench: Bench) -> None:
    put(bench, "progress/a.json")
    put(bench, "progress/b.json")
    asked = ["--spool", str(bench.root), "check", "--repair"]
    with in_the_way("unlink", errno.EBUSY, "a.json"):
        ended = click.testing.CliRunner().invoke(
            command, asked, env={"SPOOLD_CONFIG": os.devnull}, standalone_mode=False
        )
    assert ended.return_value == exits.FAILED
    assert "progress/a.json: [Errno 16]" in ended.stderr
    assert bench.names("progress") == {"a.json"}


def wait_long() -> None:
    """Wait in steps. A machine that stands still cuts only one of them short, so that others get their time."""
    for _ in range(100):
        time.sleep(0.02)


def test_nothing_that_moves_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the daemons carry hundreds of submissions through, a check that runs all the time finds nothing to mend."""
    # A move may take its time, because a disk may be slow to sync. After a standstill, the check looks again once the
    # others have had their time.
    monkeypatch.setattr(checking, "time", SimpleNamespace(sleep=lambda _: wait_long()))
    stop = threading.Event()
    seen: list[object] = []

    def look() -> None:
        while not stop.is_set():
            seen.extend(Check(bench.settings, "test").unexplained())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        names = [f"a{number}" for number in range(150)]
        for name in names:
            bench.drop(name)
            if name.endswith("5"):
                (bench.root / "incoming" / f"{name}.cancel").write_text(name)
            bench.step()
            bench.health.step()
        bench.wait_for(*names)
    finally:
        stop.set()
        looking.join()
    assert seen == []


def test_health_says_when_it_starts_what_is_unexplained(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    put(bench, "new/notes.txt")
    put(bench, "tmp/a.accept.json", old=False)
    bench.health.start()

    def unexplained() -> list[logging.LogRecord]:
        return [record for record in caplog.records if "no state explains" in record.getMessage()]

    bench.until(unexplained, bench.health.step)
    for _ in range(3):
        bench.health.step()
    said = unexplained()
    assert ["new/notes.txt" in str(vars(record)) for record in said] == [True]
    assert bench.has("new", "notes.txt")


def test_a_name_may_be_long_and_hold_any_byte(bench: Bench) -> None:
    path = os.path.join(os.fsencode(bench.root), b"tmp", b"\xff\n" + b"x" * 250)
    Path(os.fsdecode(path)).touch()
    repair(bench)
    assert not os.path.exists(path)
    assert len(bench.names("quarantine")) == 2
