"""Each dropped file is taken in once, refused clearly, or waited for. No client can block the others."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoold.actors import intake
from spoold.actors.intake import Intake, arriving, dropbox, rests
from spoold.config import Settings, ShareSettings, SpoolSettings
from spoold.host import attributes, fsops, log, strangers, syncs
from spoold.model.ids import Hint
from spoold.model.states import State
from spoold.model.submission import File, Origin, Request, Submission
from spoold.model.turns import Turns
from spoold.spool import layout
from spoold.spool import store as spool_store
from spoold.upkeep import floor
from tests.names import mine, named
from tests.rights import assert_answer

UPLOADS = [
    *(
        ".x.json.AbC123",
        ".nfs000000000012",
        ".#x.json",
        ".x.json.swp",
        ".hidden.json",
        ".json",
        "..json",
        "." + "x" * 254,
    ),
    *("x.json~", "x.json.part", "a.json.tmp", "hw (1).json~", "\xfc b.tmp", "\x1b\n.part", "a b~"),
]
GOOD = b'{"files": [{"name": "run.sh", "content": "echo hi"}]}'
NOBODY = 65534
REQUEST = Request(files=[File(name="run.sh", content="echo hi")])
ORIGIN = Origin(uid=os.getuid(), gid=os.getgid(), sha256="", arrival=0)


# for small disks, because one owner has most of the disk in these tests
WITHOUT_END = ShareSettings(bytes=1 << 40, entries=1 << 40)


class Box:
    """A drop box with an intake that a test steps."""

    def __init__(self, root: Path, settle: float = 0.0, max_file: int = 1 << 20, upload: float = 3600.0) -> None:
        layout.create(str(root))
        self.root = root
        self.settings = Settings(
            spool=SpoolSettings(path=str(root), settle=settle, max_file=max_file, upload=upload), share=WITHOUT_END
        )
        self.spool = spool_store.Spool(self.settings, "test")
        self.intake = Intake(self.settings)
        self.intake.start()

    def drop(self, name: str, data: bytes = GOOD, owner: int | None = None) -> Path:
        path = self.root / "incoming" / name
        path.write_bytes(data)
        if owner is not None:
            os.chown(path, owner, owner)
        return path

    def step(self) -> None:
        """Step until nothing waits for its turn."""
        while self.intake.step() == 0:
            pass

    def settle(self) -> None:
        self.step()
        self.step()

    def names(self, directory: str) -> set[str]:
        return {name for name in os.listdir(self.root / directory) if not name.endswith(".probe")}

    def response(self, name: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.root / "done" / f"{name}.response.json").read_bytes())
        return loaded


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_a_good_file_becomes_an_entry(box: Box) -> None:
    box.drop("a.json", owner=NOBODY)
    box.intake.step([Hint("incoming", "a.json")])
    assert box.names("incoming") == set()
    assert box.names("new") == {named("a", owner=NOBODY)}
    assert box.names("tmp") == set()
    made = box.spool.read(State.NEW, mine("a", owner=NOBODY))
    assert (made.Submission_id, made.Spool.uid, made.Spool.gid) == ("a", NOBODY, NOBODY)
    assert made.Spool.sha256 == hashlib.sha256(GOOD).hexdigest()
    raw = json.loads((box.root / "new" / named("a", owner=NOBODY)).read_bytes())
    assert list(raw) == ["format", "Submission_id", "Request", "Response", "Spool"]
    assert raw["format"] == Submission.NEWEST
    assert raw["Response"] == {
        "status": "pending",
        **{
            phase: {"stdout": "", "stderr": "", "time": "", "signal": ""}
            for phase in ("dependencies", "compile", "run")
        },
    }
    assert_answer(box.root / "progress" / "a.json", NOBODY)


def test_a_refusal_belongs_to_the_owner_and_names_the_key(box: Box) -> None:
    box.drop("a.json", b'{"bogus": 1}', owner=NOBODY)
    box.intake.step()
    assert (box.response("a")["status"], next(iter(box.response("a")))) == ("REJECTED", "Submission_id")
    assert "bogus" in box.response("a")["reason"]
    assert {
        phase: box.response("a")[phase]["outcome"] for phase in ("dependencies", "compile", "run")
    } == dict.fromkeys(("dependencies", "compile", "run"), "skipped")
    assert_answer(box.root / "done" / "a.response.json", NOBODY)
    assert box.names("incoming") == box.names("new") == box.names("tmp") == set()


def test_an_upload_is_waited_for_as_long_as_it_changes(tmp_path: Path) -> None:
    box = Box(tmp_path, settle=0.3)
    for length in range(1, len(GOOD)):
        box.drop("a.json", GOOD[:length])
        assert box.intake.step() < 1
        assert box.names("done") == set()
    box.drop("a.json", GOOD)
    box.intake.step()
    assert box.names("new") == {named("a")}


def test_an_upload_that_stops_is_refused_after_the_settle_time_and_kept(tmp_path: Path) -> None:
    box = Box(tmp_path, settle=0.2)
    box.drop("a.json", GOOD[:-1])
    box.intake.step()
    assert box.names("done") == set()
    time.sleep(0.25)
    box.intake.step()
    assert box.response("a")["status"] == "REJECTED"
    kept = [name for name in box.names("quarantine") if name.endswith(".bytes")]
    assert [(box.root / "quarantine" / name).read_bytes() for name in kept] == [GOOD[:-1]]


def test_the_clients_file_may_be_written_after_it_was_taken(box: Box) -> None:
    path = box.drop("a.json")
    with path.open("r+b") as still_open:
        box.intake.step()
        still_open.write(b'{"files": [{"name": "run.sh", "content": "evil"}]}')
        still_open.flush()
        request = box.spool.read(State.NEW, mine("a")).Request
    assert request is not None
    assert request.text_of("run.sh") == "echo hi"


def test_the_same_again_is_the_same_submission(box: Box) -> None:
    for _ in range(3):
        box.drop("a.json")
        box.intake.step()
    assert box.names("new") == {named("a")}
    assert box.names("done") == box.names("incoming") == set()


@pytest.mark.parametrize("state", ["new", "building", "running", "done"])
@pytest.mark.parametrize(("data", "owner"), [(GOOD + b" ", 0), (GOOD, NOBODY)])
def test_a_used_id_is_refused_to_anything_else_in_the_same_words(box: Box, state: str, data: bytes, owner: int) -> None:
    box.drop("a.json")
    box.intake.step()
    if state != "new":
        os.rename(box.root / "new" / named("a"), box.root / state / ("a.json" if state == "done" else named("a")))
    box.drop("a.json", data, owner=owner)
    box.intake.step()
    refusals = [name for name in box.names("done") if name.endswith(".refused.json")]
    assert len(refusals) == 1
    assert refusals[0].startswith(f"a@{owner}-")
    refusal = json.loads((box.root / "done" / refusals[0]).read_bytes())
    assert refusal["reason"] == "this id is used already: choose another file name"
    if owner == NOBODY:
        assert_answer(box.root / "done" / refusals[0], owner)
    assert box.names("incoming") == set()


def test_a_refused_id_stays_used(box: Box) -> None:
    box.drop("a.json", b"[]")
    box.intake.step()
    box.drop("a.json", GOOD)
    box.intake.step()
    assert box.response("a")["status"] == "REJECTED"
    assert box.names("new") == set()
    assert any(name.endswith(".refused.json") for name in box.names("done"))


def make_symlink(path: Path, canary: Path) -> None:
    path.symlink_to(canary)


def make_hard_link(path: Path, canary: Path) -> None:
    path.hardlink_to(canary)


def make_fifo(path: Path, canary: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path, canary: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def make_device(path: Path, canary: Path) -> None:
    os.mknod(path, 0o20666, os.makedev(1, 3))


def make_directory(path: Path, canary: Path) -> None:
    path.mkdir()
    (path / "x").write_bytes(b"x")


def make_dangling_symlink(path: Path, canary: Path) -> None:
    path.symlink_to("/nonexistent")


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (make_symlink, "symbolic link"),
        (make_hard_link, "hard link"),
        (make_fifo, "FIFO"),
        (make_socket, "socket"),
        (make_device, "device"),
        (make_directory, "directory"),
        (make_dangling_symlink, "symbolic link"),
    ],
)
def test_what_is_no_file_is_refused_and_the_rest_flows(
    box: Box, tmp_path: Path, make: Any, word: str, capfd: pytest.CaptureFixture[str]
) -> None:
    canary = tmp_path / "canary"
    canary.write_bytes(GOOD.replace(b"hi", b"secret"))
    canary.chmod(0o600)
    before = canary.stat()
    make(box.root / "incoming" / "a.json", canary)
    box.drop("b.json")
    worker = threading.Thread(target=box.settle, daemon=True)
    worker.start()
    worker.join(60)
    assert not worker.is_alive(), "something blocked"
    assert box.response("a")["status"] == "REJECTED"
    assert word in box.response("a")["reason"]
    left = [name for name in box.names("incoming") if not name.startswith(".a.json@")]
    assert left == [], "a directory is moved aside, and stays its client's"
    assert box.names("new") == {named("b")}
    after = canary.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime) == (before.st_mode, before.st_uid, before.st_mtime)
    everything = b"".join(path.read_bytes() for path in box.root.rglob("*") if path.is_file() and path != canary)
    assert b"secret" not in everything
    assert "secret" not in capfd.readouterr().err


@pytest.mark.parametrize("call", ["rmdir", "rename"])
def test_what_takes_the_place_of_a_directory_stays(box: Box, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The client replaces it by a submission just before it is removed, or just before it is moved aside."""
    path = box.root / "incoming" / "a.json"
    path.mkdir()
    (path / "x").touch()
    real, rmdir = getattr(os, call), os.rmdir

    def swap(source: str, *arguments: str) -> None:
        if source.rstrip("/") == str(path) and path.is_dir():
            (path / "x").unlink()
            rmdir(path)
            box.drop("a.json")
        real(source, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, swap)
        box.intake.step()
    assert box.names("incoming") == {"a.json"}
    box.intake.step()
    assert any(name.endswith(".refused.json") for name in box.names("done"))


@pytest.mark.parametrize("make", [make_symlink, make_fifo])
def test_a_file_that_is_swapped_between_look_and_open_is_not_followed(
    box: Box, tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    canary.write_bytes(GOOD.replace(b"hi", b"secret"))
    path = box.drop("a.json")
    open_ = os.open

    def swap_and_open(name: str, flags: int, mode: int = 0o777) -> int:
        if name == str(path) and path.is_file() and not path.is_symlink():
            path.unlink()
            make(path, canary)
        return open_(name, flags, mode)

    monkeypatch.setattr(os, "open", swap_and_open)
    worker = threading.Thread(target=box.intake.step, daemon=True)
    worker.start()
    worker.join(60)
    assert not worker.is_alive(), "it blocked"
    assert box.names("new") == set()
    box.settle()
    assert box.response("a")["status"] == "REJECTED"


def test_a_newer_file_under_the_same_name_is_not_removed(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    accept = spool_store.Spool.accept

    def accept_and_drop_again(*arguments: Any) -> bool:
        accepted = accept(*arguments)
        newer = box.root / "incoming" / ".newer"
        newer.write_bytes(GOOD + b" ")
        newer.rename(box.root / "incoming" / "a.json")
        return accepted

    monkeypatch.setattr(spool_store.Spool, "accept", accept_and_drop_again)
    box.drop("a.json")
    box.intake.step()
    assert box.names("incoming") == {"a.json"}
    monkeypatch.undo()
    box.intake.step()
    assert any(name.endswith(".refused.json") for name in box.names("done")), "the newer file gets an answer of its own"


def test_a_hard_link_that_goes_away_was_only_a_way_to_publish(tmp_path: Path) -> None:
    box = Box(tmp_path, settle=60)
    private = box.root / "incoming" / ".a.tmp"
    private.write_bytes(GOOD)
    (box.root / "incoming" / "a.json").hardlink_to(private)
    box.intake.step()
    assert box.names("new") == set()
    private.unlink()
    box.intake.step()
    assert box.names("new") == {named("a")}


def test_a_file_that_is_too_large_is_refused_at_once(tmp_path: Path) -> None:
    box = Box(tmp_path, settle=60, max_file=1000)
    with box.drop("a.json").open("r+b") as file:
        file.truncate(1 << 40)
    box.intake.step()
    assert "1000" in box.response("a")["reason"]


@pytest.mark.parametrize("name", UPLOADS)
def test_uploads_in_progress_are_left_alone(box: Box, name: str) -> None:
    box.drop(name)
    box.settle()
    assert box.names("incoming") == {name}
    assert box.names("new") == box.names("done") == set()


def test_a_crash_between_the_entry_and_the_clients_file_is_no_second_submission(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    box.drop("a.json")
    with monkeypatch.context() as patched:
        patched.setattr(strangers, "remove_dropped", crash)
        with pytest.raises(KeyboardInterrupt):
            box.intake.step()
    assert box.names("incoming") == {"a.json"}
    again = Intake(box.settings)
    again.start()
    again.step()
    assert box.names("incoming") == box.names("done") == set()
    assert box.names("new") == {named("a")}


def test_a_full_disk_leaves_the_clients_file_and_the_next_look_takes_it(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    box.drop("a.json")
    with monkeypatch.context() as patched:
        patched.setattr(fsops, "write_private", full)
        box.intake.step()
    assert box.names("incoming") == {"a.json"}
    box.intake.step()
    assert box.names("new") == {named("a")}


def test_five_hundred_bad_files_leave_nothing_private_behind(box: Box) -> None:
    for number in range(500):
        box.drop(f"bad-{number}.json", b'{"files": 1}' if number % 2 else b"\xff\x00")
    box.settle()
    assert box.names("incoming") == box.names("tmp") == set()
    assert len([name for name in box.names("done") if name.endswith(".response.json")]) == 500


def test_log_records_cannot_be_forged(box: Box, capfd: pytest.CaptureFixture[str]) -> None:
    log.set_up(level="info", journal=False)
    box.drop("x\nlevel=error msg=forged.json")
    box.drop("a.json", msgspec.json.encode({"x\x1b[31m\nlevel=error": 1}))
    box.settle()
    captured = capfd.readouterr().err
    assert captured.count("\n") == 2
    assert captured.replace("\n", "").isprintable()


def test_no_file_goes_before_the_name_of_its_entry_is_durable(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sync serves many files. An entry from an intake that died earlier is synced too."""
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)  # nothing takes any time
    done: list[str] = []
    real_sync, real_remove = fsops.sync_directory, strangers.remove_dropped

    def sync(path: str) -> None:
        done.append("sync " + os.path.basename(path.rstrip("/")))
        real_sync(path)

    def remove(path: str, dropped: strangers.Dropped) -> None:
        done.append("remove")
        real_remove(path, dropped)

    monkeypatch.setattr(fsops, "sync_directory", sync)
    monkeypatch.setattr(strangers, "remove_dropped", remove)
    for number in range(5):
        box.drop(f"a{number}.json")
    box.intake.step()
    assert done == ["sync new", *["remove"] * 5]
    done.clear()
    box.drop("a0.json")
    box.intake.step()
    assert done == ["sync new", "remove"]
    done.clear()
    for number in range(intake.BATCH + 1):
        box.drop(f"b{number}.json")
    box.step()
    assert done == ["sync new", *["remove"] * intake.BATCH, "sync new", "remove"]


def test_files_stay_while_the_names_of_their_entries_cannot_be_made_durable(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise OSError(5, "Input/output error")

    box.drop("a.json")
    with monkeypatch.context() as patch:
        patch.setattr(fsops, "sync_directory", fail)
        with pytest.raises(OSError, match="Input/output"):
            box.intake.step()
    assert box.names("incoming") == {"a.json"}
    box.intake.step()
    assert box.names("incoming") == set()
    assert box.names("new") == {named("a")}


def test_owners_take_turns(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three files arrive after hundreds of another user's. They are among the first six of the next batch."""
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)  # nothing takes any time
    taken: list[str] = []
    real = box.intake._take

    def take(name: str) -> bool:
        taken.append(name)
        return real(name)

    monkeypatch.setattr(box.intake, "_take", take)
    for number in range(300):
        box.drop(f"many-{number}.json", owner=NOBODY)
    assert box.intake.step() == 0, "there is more to do"
    for number in range(3):
        box.drop(f"few-{number}.json", owner=NOBODY - 1)
    box.intake.step([Hint("incoming", f"few-{number}.json") for number in range(3)])
    assert {name for name in taken[intake.BATCH : intake.BATCH + 6] if name.startswith("few")} == {
        "few-0.json",
        "few-1.json",
        "few-2.json",
    }
    assert len(taken) == 2 * intake.BATCH
    box.step()
    assert len(taken) == 303
    assert len(box.names("new")) == 303


def test_what_one_owner_has_lying_there_is_remembered_up_to_a_bound(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)  # nothing takes any time
    monkeypatch.setattr(box.intake._box, "_waiting", Turns[tuple[str, attributes.Owned]](100))
    for number in range(300):
        box.drop(f"many-{number}.json")
    box.intake.step()
    assert len(box.intake._box._waiting) == 100 - intake.BATCH
    box.step()
    assert len(box.names("new")) == 300


def test_a_host_that_is_in_the_way_is_said_once_and_costs_nothing(box: Box, capfd: pytest.CaptureFixture[str]) -> None:
    """With no descriptor left, intake doesn't even try another file after the first failure."""
    log.set_up(level="info", journal=False)
    for number in range(100):
        box.drop(f"a{number}.json")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    names = os.listdir(box.root / "incoming")
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert box.intake.step([Hint("incoming", name) for name in names]) == intake.FULL
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert capfd.readouterr().err.count("Too many open files") == 1
    assert len(box.names("incoming")) == 100
    box.step()
    assert len(box.names("new")) == 100


def test_a_disk_that_is_nearly_full_stops_the_taking_until_it_has_room(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log.set_up(level="info", journal=False)
    monkeypatch.setattr(floor, "LOOK", 0.0)
    box = Box(small_disk)
    for number in range(10):
        box.drop(f"a{number}.json")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(3_800_000))
    for _ in range(3):
        assert box.intake.step() == intake.FULL
    assert box.names("new") == set()
    assert capfd.readouterr().err.count("too little is free on the disk") == 1
    ballast.unlink()
    box.step()
    assert len(box.names("new")) == 10
    assert "enough is free again" in capfd.readouterr().err
    crowd = small_disk / "crowd"
    crowd.mkdir()
    for number in range(400 - 90 - used_inodes(small_disk)):
        (crowd / str(number)).touch()
    box.drop("b.json")
    box.step()
    assert box.names("incoming") == set(), "with 90 free inodes it still goes on"
    for number in range(60):
        (crowd / f"more-{number}").touch()
    box.drop("c.json")
    assert box.intake.step() == intake.FULL
    assert "inodes are free" in capfd.readouterr().err
    shutil.rmtree(crowd)
    box.step()
    assert box.names("incoming") == set()


def used_inodes(disk: Path) -> int:
    status = os.statvfs(disk)
    return status.f_files - status.f_ffree


def test_a_disk_that_is_full_loses_nothing(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no floor here, so every write of intake finds the disk full."""
    monkeypatch.setattr(floor.Floor, "reached", lambda _: False)
    box = Box(small_disk)
    data = msgspec.json.encode({"files": [{"name": "run.sh", "content": "x" * 100_000}]})
    for number in range(25):
        box.drop(f"a{number}.json", data)
    assert box.intake.step() == intake.FULL, "the disk has no room for all entries beside the files"
    taken = len(box.names("new"))
    assert 0 < taken < 25
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    assert box.intake.step() == intake.FULL
    assert len(box.names("new")) + len(box.names("incoming")) == 25
    ballast.unlink()
    for entry in (small_disk / "new").iterdir():
        entry.rename(small_disk / "done" / entry.name)
        (small_disk / "done" / entry.name).write_bytes(b"")
    box.step()
    assert len(box.names("new")) + len(box.names("done")) >= 25
    assert box.names("incoming") == set()


def test_a_spool_that_is_read_only_for_a_while_loses_nothing(small_disk: Path) -> None:
    box = Box(small_disk)
    box.drop("a.json")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    try:
        assert box.intake.step() == intake.FULL
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    box.step()
    assert box.names("new") == {named("a")}
    assert box.names("incoming") == set()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")


@needs_root
@pytest.mark.parametrize("data", [GOOD, b"", b'{"files": [', b"[]"])
def test_an_id_that_begins_with_a_uid_is_that_users(box: Box, data: bytes) -> None:
    path = box.drop("1000.ex3.json", data, owner=NOBODY)
    box.step()
    assert not path.exists(), "it is refused at once, even if the upload still goes on"
    (refusal,) = (box.root / "done").iterdir()
    assert refusal.name.startswith(f"1000.ex3@{NOBODY}-")
    assert "begins with 1000. is user 1000's" in json.loads(refusal.read_bytes())["reason"]
    assert_answer(refusal, NOBODY)
    box.drop("1000.ex3.json", owner=1000)
    box.step()
    assert [path.name for path in (box.root / "new").iterdir()] == ["1000.ex3@1000-1.json"]


@needs_root
def test_such_an_id_is_for_its_user_alone_to_cancel_and_the_operator(box: Box) -> None:
    box.drop("1000.ex3.json", owner=1000)
    box.step()
    path = box.drop("1000.ex3.cancel", b"", owner=NOBODY)
    box.intake.step()
    assert not path.exists()
    assert list((box.root / "new").iterdir())
    box.drop("1000.ex3.cancel", b"1000.ex3", owner=0)
    box.step()
    assert not list((box.root / "new").iterdir())


@pytest.mark.parametrize("id_", ["1000", "1000-a", "01000.a", "a.1000.b", "12345678901.a"])
def test_other_ids_are_for_whoever_is_first(box: Box, id_: str) -> None:
    box.drop(f"{id_}.json", owner=NOBODY if os.geteuid() == 0 else None)
    box.step()
    assert [path.name for path in (box.root / "new").iterdir()] == [
        named(id_, owner=NOBODY if os.geteuid() == 0 else None)
    ]


def test_a_name_is_not_kept_for_ever_by_an_upload_that_never_ends(tmp_path: Path) -> None:
    box = Box(tmp_path, settle=600.0, upload=0.5)
    path = box.drop("a.json", b'{"files": [')
    deadline = time.monotonic() + 60
    while path.exists():
        with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(b" ")
        box.step()
        assert time.monotonic() < deadline
    assert (
        "0.5 s after it arrived it is still"
        in json.loads((box.root / "done" / "a.response.json").read_bytes())["reason"]
    )


HOLDER = f"""
import fcntl, os, signal, sys
os.setgid({NOBODY})
os.setuid({NOBODY})
signal.signal(signal.SIGIO, signal.SIG_IGN)
for path in sys.argv[1:]:
    fcntl.fcntl(os.open(path, os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def leased(*paths: Path) -> Iterator[None]:
    """Let NOBODY, who owns the files, hold a write lease on each of them inside the block."""
    command = [sys.executable, "-c", HOLDER, *map(str, paths)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == b"held\n"
            yield
        finally:
            holder.stdin.close()


@pytest.fixture
def open_path(tmp_path: Path) -> Path:
    """Return a spool's root that every user can reach."""
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    return tmp_path / "spool"


@needs_root
def test_a_lease_keeps_no_name(open_path: Path) -> None:
    """Intake waits for its owner's files up to the settle time. An id with another user's uid is free at once."""
    box = Box(open_path, settle=600.0)
    paths = [box.drop(name, owner=NOBODY) for name in ("a.json", "1000.ex3.json", "1000.ex3.cancel", "b.cancel")]
    with leased(*paths):
        box.step()
        assert box.names("incoming") == {"a.json", "b.cancel"}
        box.intake.apply_settings(
            msgspec.structs.replace(box.settings, spool=SpoolSettings(path=str(box.root), settle=0.0))
        )
        box.step()
        assert box.names("incoming") == set()
    assert "holds a lease" in box.response("a")["reason"]


@needs_root
def test_a_file_is_taken_in_when_the_lease_on_it_ends(open_path: Path) -> None:
    box = Box(open_path, settle=600.0)
    path = box.drop("a.json", owner=NOBODY)
    with leased(path):
        box.step()
        assert box.names("incoming") == {"a.json"}
    box.step()
    assert box.names("new") == {named("a", owner=NOBODY)}


def test_a_name_that_cannot_be_looked_at_is_nobody_elses_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A user may have mounted a file system over it. The name was seen before or not, and others lie beside it."""
    box = Box(tmp_path, settle=600.0)
    closed = {str(box.drop(name, b"{")) for name in ("a.json", "b.json")}
    box.step()
    closed |= {str(box.drop(f"{number}.json")) for number in range(20)}
    cancel = box.drop("a.cancel", b"a")
    real = os.lstat

    def lstat(path: str) -> os.stat_result:
        if path in closed:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "lstat", lstat)
    box.drop("c.json")
    box.settle()
    assert box.names("new") == {named("c")}
    box.intake.apply_settings(
        msgspec.structs.replace(box.settings, spool=SpoolSettings(path=str(tmp_path), settle=0.0))
    )
    box.settle()
    assert not cancel.exists()
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


def box_short_of_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int) -> Box:
    """Return a box with a submission z, and more than a batch of one owner's cancels that have no effect.

    Each file takes the same time by a fake clock, because owners take turns by time.
    """
    box = Box(tmp_path, settle=600.0)
    now, real = [1000.0], box.intake._take

    def take(name: str) -> bool:
        now[0] += 1e-6
        return real(name)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(box.intake, "_take", take)
    box.drop("z.json", owner=1000)
    box.step()
    monkeypatch.setattr(floor.Floor, "reached", lambda _: True)
    for number in range(2 * intake.BATCH):
        box.drop(f"a{number}.cancel", b"junk", owner=owner)
    return box


@needs_root
def test_owners_take_turns_to_cancel_while_the_disk_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cancels of one owner arrive before that of another."""
    box = box_short_of_disk(tmp_path, monkeypatch, NOBODY)
    assert box.intake.step() == intake.FULL
    box.drop("z.cancel", b"z", owner=1000)
    box.intake.step()
    assert box.response("z")["status"] == "CANCELLED"


@needs_root
def test_all_cancels_have_a_turn_while_the_disk_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = box_short_of_disk(tmp_path, monkeypatch, 1000)
    box.drop("z.cancel", b"z", owner=1000)
    for _ in range(4):
        assert box.intake.step() == intake.FULL
    assert box.response("z")["status"] == "CANCELLED"


@pytest.mark.usefixtures("paced")
def test_cancels_take_a_while_at_most_while_the_disk_is_short(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    now, taken = [1000.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(floor.Floor, "reached", lambda _: True)

    def take(name: str) -> bool:
        taken.append(name)
        now[0] += intake.LONG
        return True

    monkeypatch.setattr(box.intake, "_take", take)
    for number in range(5):
        box.drop(f"{number}.cancel")
    box.intake.step()
    assert len(taken) == 1


@pytest.mark.usefixtures("paced")
@needs_root
def test_owners_take_turns_by_time(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """One owner has files that take seconds to read. The other owner's files go between two of them."""
    now, taken = [1000.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    real = box.intake._take

    def take(name: str) -> bool:
        taken.append(name)
        now[0] += 2.5 if name.startswith("long") else 0.03
        return real(name)

    monkeypatch.setattr(box.intake, "_take", take)
    for number in range(10):
        box.drop(f"long-{number}.json", owner=NOBODY)
    box.intake.step()
    assert len(taken) == 1, "the batch ends, so that later files get their turn"
    for number in range(20):
        box.drop(f"short-{number}.json", owner=1000)
    box.step()
    assert [name[0] for name in taken] == [*"l", *"s" * 20, *"l" * 9]
    taken.clear()
    for number in range(5):
        box.drop(f"long-again-{number}.json", owner=1000)
        box.drop(f"long-more-{number}.json", owner=NOBODY)
    box.step()
    late = [name.split("-")[1] for name in taken[:4]]
    assert set(late) == {"again", "more"}, "nobody saves up time that they did not use"


@pytest.mark.usefixtures("paced")
@pytest.mark.parametrize("step", [0.0, 1.0])
def test_one_step_looks_through_the_names_for_a_while(box: Box, monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    """A step reads many parts of the names where that is quick, and one where it is slow.

    Then more work is due at once.
    """
    now = [1000.0]
    monkeypatch.setattr(dropbox, "PART", 10)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    real = box.intake._box.see

    def see(names: Iterable[str]) -> bool:
        now[0] += step
        return real(names)

    monkeypatch.setattr(box.intake._box, "see", see)
    monkeypatch.setattr(floor.Floor, "reached", lambda _: True)
    for number in range(95):
        box.drop(f"{number}.json")
    steps = 1
    while box.intake.step() == 0:
        assert box.intake._box.until_look == 0
        steps += 1
    assert steps == (10 if step else 1)


@pytest.mark.usefixtures("paced")
def test_what_comes_while_the_names_are_looked_through_is_found_afterwards(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds if its event was lost, and if reading took so long that intake doesn't read the names again at once.

    A scan that was requested meanwhile starts after the pause that intake returns.
    """
    now, listed = [1000.0], os.scandir
    monkeypatch.setattr(dropbox, "PART", 10)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for number in range(25):
        box.drop(f"{number}.json")

    def scandir(path: str) -> Any:
        monkeypatch.setattr(os, "scandir", listed)
        return contextlib.nullcontext(slow(path))

    def slow(path: str) -> Iterator[os.DirEntry[str]]:
        for entry in list(listed(path)):
            now[0] += dropbox.LOOKING / 10
            yield entry

    monkeypatch.setattr(os, "scandir", scandir)
    assert box.intake.step() == 0, "one step does not look at all names"
    box.drop("late.json")
    pause = box.intake.step()
    while pause == 0:
        pause = box.intake.step([])
    assert box.names("incoming") == {"late.json"}
    assert pause <= dropbox.REST * 25 * dropbox.LOOKING / 10 < box.settings.spool.scan
    now[0] += pause
    box.intake.step([])
    assert named("late") in box.names("new")


@pytest.mark.usefixtures("paced")
@needs_root
def test_uploads_that_change_all_the_time_take_a_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each upload takes a second to read and changes at once. The looks leave time, and others do not wait."""
    box, now, worked, looks = Box(tmp_path, settle=600.0), [1000.0], [0.0], [0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "thread_time", lambda: worked[0])
    real = box.intake._acceptance._read

    def read(dropped: strangers.Dropped) -> Any:
        if dropped.uid == NOBODY:
            now[0], worked[0], looks[0] = now[0] + 1, worked[0] + 1, looks[0] + 1
        return real(dropped)

    monkeypatch.setattr(box.intake._acceptance, "_read", read)
    paths = [box.drop(f"{number}.json", GOOD[:-1], owner=NOBODY) for number in range(5)]
    for number in range(40):
        others = box.drop(f"others-{number}.json", owner=1000)
        while others.exists():
            box.intake.step()
        for path in paths:
            path.write_bytes(path.read_bytes() + b" ")
            path.rename(path.with_name(f"{number}-{path.name.rpartition('-')[2]}"))
        paths = [path.with_name(f"{number}-{path.name.rpartition('-')[2]}") for path in paths]
        pause = box.intake.step()
        now[0] += max(pause, 0.1)
    assert 1 / 6 < looks[0] / (now[0] - 1000.0) <= 1 / (1 + rests.REST) + 0.05
    for path in paths:
        path.write_bytes(GOOD)
    for _ in range(100):
        now[0] += box.intake.step()
    assert {named(path.stem, owner=NOBODY) for path in paths} <= box.names("new"), "each has its turn"


def test_of_one_owner_so_many_uploads_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(tmp_path, settle=600.0)
    monkeypatch.setattr(arriving, "MOST", 3)
    for number in range(5):
        box.drop(f"{number}.json", GOOD[:-1])
        box.drop(f"{number}.cancel", b"")
    box.settle()
    assert len(box.intake._arriving.names()) == 3
    for number in range(5):
        box.drop(f"{number}.json")
    box.settle()
    assert len(box.names("new")) == 5
    for name in box.names("incoming"):
        (box.root / "incoming" / name).unlink()
    box.settle()
    assert not box.intake._arriving
    assert not box.intake._arriving._counts


@pytest.mark.usefixtures("paced")
def test_what_is_gone_is_forgotten_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box, now, looks = Box(tmp_path, settle=600.0), [1000.0], [0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(dropbox, "PART", 10)
    paths = [box.drop(f"{number}.json", GOOD[:-1]) for number in range(95)]
    box.step()
    for path in paths:
        path.unlink()
    real = attributes.owner

    def owner(path: str) -> attributes.Owned | None:
        looks[0] += 1
        now[0] += dropbox.LOOKING / 10
        return real(path)

    monkeypatch.setattr(attributes, "owner", owner)
    steps = 1
    while box.intake.step([] if steps > 1 else None) == 0:
        steps += 1
        assert looks[0] <= 2 * dropbox.PART, "the bound for one step"
        looks[0] = 0
    assert steps >= 4
    assert not box.intake._arriving


@needs_root
def test_a_name_that_is_held_keeps_nobody_from_the_id(tmp_path: Path) -> None:
    """Another user holds the usual name by an upload that never ends.

    The part after the @ does not belong to the id.
    """
    box = Box(tmp_path, settle=600.0)
    box.drop("a.json", GOOD[:-1], owner=NOBODY)
    box.step()
    box.drop("a@nobody_knows_1.json", owner=1000)
    box.step()
    assert box.names("new") == {named("a", owner=1000)}
    assert box.names("incoming") == {"a.json"}
    box.drop("a@nobody_knows_2.json", GOOD, owner=1000)
    box.drop("a@nobody_knows_3.json", GOOD + b" ", owner=1000)
    box.drop("1000.a@nobody_knows.json", owner=NOBODY)
    box.step()
    assert box.names("new") == {named("a", owner=1000)}, "the second file has the same submission, and adds no entry"
    digest = hashlib.sha256(GOOD + b" ").hexdigest()[:8], hashlib.sha256(GOOD).hexdigest()[:8]
    refused = {f"a@1000-{digest[0]}.refused.json", f"1000.a@{NOBODY}-{digest[1]}.refused.json"}
    assert box.names("done") == refused
    assert box.names("incoming") == {"a.json"}


def test_what_users_can_repeat_is_one_line_a_minute(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="spoold")
    for number in range(20):
        box.drop(f"1000000.{number}.json")
        box.drop(f"a{number}.cancel", b"junk")
    box.settle()
    said = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    assert said.count("refused: the id is another user's") == 1
    assert said.count("nothing is cancelled") == 1


@needs_root
def test_a_file_that_got_the_number_of_one_that_is_gone_stays(box: Box) -> None:
    """File systems reuse inode numbers at once. Then another user's file may have the same name and number."""
    path = box.drop("a.json", owner=NOBODY)
    taken = strangers.look_at_dropped(str(path), 1000)
    assert taken is not None
    os.chown(path, 1000, 1000)
    strangers.remove_dropped(str(path), taken)
    assert path.exists()
    os.chown(path, NOBODY, NOBODY)
    strangers.remove_dropped(str(path), taken)
    assert not path.exists()


def test_files_that_came_together_are_synced_at_the_same_time(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, each file would wait for the disk, which can do many syncs in the same time."""
    at_once = threading.Barrier(syncs.AT_ONCE, timeout=60)
    fsync, calls = os.fsync, itertools.count()

    def slow(descriptor: int) -> None:
        if next(calls):
            at_once.wait()
        fsync(descriptor)

    monkeypatch.setattr(syncs, "SLOW", 0.0)
    monkeypatch.setattr(os, "fsync", slow)
    names = {f"{number}.json" for number in range(syncs.AT_ONCE + 1)}
    for name in names:
        box.drop(name)
    monkeypatch.setattr(fsops, "sync_directory", lambda _: None)
    box.step()
    assert box.names("incoming") == set()
    assert len(box.names("new")) == len(names)
    assert box.names("tmp") == set()


def test_nothing_is_seen_before_all_that_is_stored_with_it_is_synced(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def sync(paths: Iterable[str]) -> None:
        assert len([*paths]) == 2
        assert box.names("new") == set()
        raise OSError(errno.EIO, "Input/output error")

    box.drop("a.json")
    box.drop("b.json")
    with monkeypatch.context() as patch:
        patch.setattr(spool_store, "sync_files", sync)
        patch.setattr(spool_store.Spool, "accept", lambda *_: pytest.fail("no file may be accepted before the sync"))
        with pytest.raises(OSError, match="Input/output"):
            box.spool.accept_all([(id_, REQUEST, ORIGIN) for id_ in ("c", "d")])
    assert box.names("tmp") == set()
    box.step()
    assert box.names("new") == {named("a"), named("b")}


def test_one_that_cannot_be_stored_is_not_in_the_way_of_others(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = fsops.publish

    def broken(private: str, public: str) -> bool:
        if public.endswith(named("bad")):
            raise OSError(errno.EIO, "Input/output error", public)
        return publish(private, public)

    for name in ("a", "bad", "z"):
        box.drop(f"{name}.json")
    with monkeypatch.context() as patch:
        patch.setattr(fsops, "publish", broken)
        box.step()
        assert box.names("new") == {named("a"), named("z")}
        assert box.names("incoming") == {"bad.json"}
        assert box.names("tmp") == set()
    box.step()
    assert box.names("new") == {named(id_) for id_ in ("a", "bad", "z")}
    assert box.names("incoming") == set()


def test_two_files_of_one_id_that_came_together_are_one_submission_and_one_answer(box: Box) -> None:
    box.drop("a.json")
    box.drop("a@12345678.json")
    box.drop("a@87654321.json", GOOD.replace(b"hi", b"ho"))
    box.step()
    assert box.names("new") == {named("a")}
    assert box.names("incoming") == set()
    assert len([name for name in box.names("done") if name.endswith(".refused.json")]) == 1
