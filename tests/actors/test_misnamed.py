"""A file that cannot be a submission by its name is answered once, under a name that shows its own, for its owner."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoold.host import attributes, fsops
from spoold.model import ids, misnamed
from spoold.spool import store
from spoold.upkeep.check import Check
from spoold.upkeep.counting import Counter
from spoold.upkeep.repair import repair
from spoold.upkeep.shares import Count
from tests.actors.test_intake import GOOD, NOBODY, Box, needs_root
from tests.refusals import look, of_name
from tests.rights import assert_answer

ALICE, BOB = 64_101, 64_102
SHA256 = hashlib.sha256(GOOD).hexdigest()
NOTHING = hashlib.sha256(b"").hexdigest()


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def answer(box: Box, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((box.root / "done" / name).read_bytes())
    return loaded


NAMES = [
    *("hw (1).json", "übung.json", "HW.JSON", f"{'x' * 140}.json", "-x.json", "job.response.json", "homework.zip"),
    *(
        "hw",
        "a.refused.json",
        "a.cancel.json",
        "a.outputs.json",
        "a@1.json",
        "a@1000-01234567.refused.json",
        "#a.json#",
    ),
    *("a\nb\r\x1b[2J\x7f.json", "\udcff\udcfe.json", "\u202egnp.json", "x" * 255, "\udcff" * 255, f"{'é' * 125}.json"),
    *("hw (1).cancel", "x.CANCEL", "a b.json.json", "%.json", "_", " ", "\\", "x.json ", "~x", "a~b", "-", "--help"),
]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_answered(box: Box, name: str) -> None:
    box.drop(name)
    box.settle()
    called = f"{misnamed.stem(name)}.refused.json"
    assert box.names("done") == {called}
    assert box.names("incoming") == box.names("tmp") == box.names("new") == box.names("ids") == set()
    found = answer(box, called)
    assert list(found)[:2] == ["Submission_id", "request_sha256"]
    assert found["Submission_id"] == misnamed.stem(name)
    assert found["request_sha256"] == SHA256
    assert (found["status"], found["uid"]) == ("REJECTED", os.geteuid())
    assert {found[phase]["outcome"] for phase in ("dependencies", "compile", "run")} == {"skipped"}
    good = found["reason"].rpartition("for example ")[2]
    right = ids.cancelled_id if name.lower().endswith(".cancel") else ids.submission_id
    assert right(good), found["reason"]
    kept = [each for each in box.names("quarantine") if each.endswith(".bytes")]
    assert [(box.root / "quarantine" / each).read_bytes() for each in kept] == [GOOD]
    check = Check(box.settings, "check")
    assert check.unexplained() == []
    for asked in (name, name.removesuffix(".json")):
        seen = look(box.root, asked)
        assert seen is not None
        assert seen.reason == found["reason"]


@needs_root
def test_it_is_its_owners_to_read(box: Box) -> None:
    box.drop("hw (1).json", owner=NOBODY)
    box.settle()
    assert_answer(box.root / "done" / "hw%20%281%29.refused.json", NOBODY)


def test_it_may_change_and_be_renamed_until_the_settle_time_is_over(tmp_path: Path) -> None:
    box = Box(tmp_path, settle=600.0)
    path = box.drop("hw (1).json", b"{")
    for data in (b"{}", GOOD):
        box.settle()
        assert box.names("done") == set()
        path.write_bytes(data)
    box.settle()
    path.rename(path.with_name("hw.json"))
    box.step()
    assert box.names("incoming") == box.names("done") == set()
    assert len(box.names("new")) == 1
    box.step()
    assert not box.intake._arriving


def test_it_is_not_opened_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(tmp_path, settle=600.0)
    monkeypatch.setattr(fsops, "read_open", None)
    box.drop("hw (1).json")
    box.settle()
    assert box.names("incoming") == {"hw (1).json"}


def test_one_that_changes_for_ever_is_refused(tmp_path: Path) -> None:
    box = Box(tmp_path, settle=600.0, upload=0.5)
    path = box.drop("a b.json", b"{")
    deadline = time.monotonic() + 60
    while not box.names("done"):
        assert time.monotonic() < deadline
        if path.exists():
            path.write_bytes(os.urandom(9))
        box.step()
    assert box.names("done") >= {"a%20b.refused.json"}


def make_link(path: str) -> None:
    os.symlink("/etc/shadow", path)


def make_hard_link(path: str) -> None:
    elsewhere = os.path.join(os.path.dirname(path), "..", "elsewhere")
    Path(elsewhere).write_bytes(GOOD)
    os.link(elsewhere, path)


def make_socket(path: str) -> None:
    directory = os.open(os.path.dirname(path), os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as listener:  # paths of sockets must be short
            listener.bind(f"/proc/self/fd/{directory}/s")
        os.rename(f"/proc/self/fd/{directory}/s", path)
    finally:
        os.close(directory)


def make_device(path: str) -> None:
    os.mknod(path, 0o20666, os.makedev(1, 3))


def make_full_directory(path: str) -> None:
    os.mkdir(path)
    Path(path, "x").touch()


KINDS: list[tuple[Callable[[str], None], str]] = [
    (make_link, "symbolic link"),
    (make_hard_link, "hard link"),
    (os.mkfifo, "FIFO"),
    (make_socket, "socket"),
    (make_device, "device"),
    (os.mkdir, "directory"),
    (make_full_directory, "directory"),
]


@pytest.mark.parametrize("name", ["hw (1).json", "\n" * 255, "\udcff.json"])
@pytest.mark.parametrize(("make", "word"), KINDS)
def test_what_is_no_file_is_neither_read_nor_followed(
    box: Box, make: Callable[[str], None], word: str, name: str
) -> None:
    if make is make_device and os.geteuid() != 0:
        pytest.skip("only root can make devices")
    make(str(box.root / "incoming" / name))
    box.drop("b.json")
    box.settle()
    called = f"{misnamed.stem(name)}.refused.json"
    assert box.names("done") == {called}
    assert len(box.names("new")) == 1
    found = answer(box, called)
    assert word in found["reason"]
    assert "request_sha256" not in found, "nothing was read"
    left = box.names("incoming")
    assert len(left) == (make is make_full_directory)
    assert all(re.fullmatch(r"\..*@[0-9a-f]{8}\.directory", each, re.DOTALL) for each in left)
    assert box.names("quarantine") == set()
    box.settle()
    assert box.names("done") == {called}


def test_an_empty_file_is_answered(box: Box) -> None:
    box.drop("hw (1).json", b"")
    box.settle()
    assert answer(box, "hw%20%281%29.refused.json")["request_sha256"] == NOTHING


def test_of_a_large_file_only_the_beginning_is_read(tmp_path: Path) -> None:
    box = Box(tmp_path, max_file=1000)
    with box.drop("homework.zip").open("r+b") as file:
        file.truncate(1 << 40)
    box.settle()
    found = answer(box, "homework.zip.refused.json")
    assert "larger than the 1000 bytes" in found["reason"]
    assert "request_sha256" not in found


@needs_root
def test_each_has_an_answer_of_their_own(box: Box) -> None:
    """The first file's answer has the plain name.

    Names of later answers contain the uid and a digest of the content.
    """
    first, other = GOOD, b"PK\x03\x04"
    sums = [hashlib.sha256(data).hexdigest()[:8] for data in (first, other)]
    for uid, data in ((ALICE, first), (BOB, first), (ALICE, first), (ALICE, other), (BOB, other), (BOB, other)):
        box.drop("hw (1).json", data, owner=uid)
        box.settle()
    wanted = [(f"@{ALICE}-{sums[1]}", ALICE), *((f"@{BOB}-{each}", BOB) for each in sums), ("", ALICE)]
    assert box.names("done") == {f"hw%20%281%29{each}.refused.json" for each, _ in wanted}
    for each, uid in wanted:
        assert_answer(box.root / "done" / f"hw%20%281%29{each}.refused.json", uid)
        assert answer(box, f"hw%20%281%29{each}.refused.json")["uid"] == uid
    assert box.names("tmp") == set()


@needs_root
def test_the_plain_name_of_what_begins_with_a_uid_is_for_that_user(box: Box) -> None:
    box.drop(f"{ALICE}.a b.json", owner=BOB)
    box.settle()
    assert box.names("done") == {f"{ALICE}.a%20b@{BOB}-{SHA256[:8]}.refused.json"}
    box.drop(f"{ALICE}.a b.json", owner=ALICE)
    box.settle()
    assert f"{ALICE}.a%20b.refused.json" in box.names("done")


@needs_root
def test_who_corrects_a_name_is_not_told_of_the_wrong_one(box: Box) -> None:
    """Bob used the wrong name first. So Alice's refusal has her uid in it, and is not a refusal of the id ``hw``."""
    box.drop("hw", owner=BOB)
    box.settle()
    box.drop("hw", owner=ALICE)
    box.settle()
    refused = of_name(box.root, "hw", ALICE, SHA256)
    assert refused is not None
    assert refused.uid == ALICE
    box.drop("hw.json", owner=ALICE)
    box.settle()
    assert len(box.names("new")) == 1
    assert not box.names("incoming")
    assert not box.names("done") & {ids.refusal_name("hw", ALICE, SHA256)}
    assert look(box.root, "hw") is not None


def test_a_client_takes_no_other_answer_for_its_own(box: Box) -> None:
    box.drop("hw (1).json")
    assert of_name(box.root, "hw (1).json", os.geteuid(), SHA256) is None
    box.settle()
    found = of_name(box.root, "hw (1).json", os.geteuid(), SHA256)
    assert found is not None
    assert found.request_sha256 == SHA256
    assert look(box.root, "hw (1)") == found
    assert of_name(box.root, "hw (1).json", os.geteuid(), NOTHING) is None
    assert of_name(box.root, "hw (1).json", BOB, SHA256) is None


def test_who_dies_before_the_file_goes_answers_once(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.drop("hw (1).json")
    with monkeypatch.context() as patch:
        patch.setattr(type(box.intake._box), "remove", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            box.settle()
    assert box.names("incoming") == {"hw (1).json"}
    before = box.names("done")
    box.settle()
    assert box.names("done") == before == {"hw%20%281%29.refused.json"}
    assert box.names("incoming") == set()


def test_it_is_durable_before_the_file_goes(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(type(box.intake._box), "remove", lambda *_: said.append("gone"))
    real = fsops.sync_directory

    def sync(path: str) -> None:
        real(path)
        said.append(Path(path).name if "hw%20.refused.json" in box.names("done") else "early")

    monkeypatch.setattr(fsops, "sync_directory", sync)
    box.drop("hw .json")
    box.settle()
    assert said[-2:] == ["done", "gone"]


@needs_root
@pytest.mark.parametrize("how", ["list", "reader", "no list", "given away"])
def test_it_counts_as_its_owners(tmp_path: Path, how: str) -> None:
    """This holds if its owner may read all answers too, and in a copy without lists, which the check mends."""
    box = Box(tmp_path)
    changes: dict[str, dict[str, Any]] = {
        "reader": {"readers": [f"user:{ALICE}", f"user:{BOB}"]},
        "given away": {"answers": "owner"},
    }
    settings = msgspec.structs.replace(
        box.settings, spool=msgspec.structs.replace(box.settings.spool, **changes.get(how, {}))
    )
    spool = store.Spool(settings, "test")
    box.intake._misnamed._spool = spool
    box.drop("hw (1).json", b"", owner=ALICE)
    box.settle()
    path = box.root / "done" / "hw%20%281%29.refused.json"
    if how == "no list":
        os.removexattr(path, "system.posix_acl_access")
        found = Check(box.settings, "check").unexplained()
        assert [each.path for each in found] == ["done/hw%20%281%29.refused.json"]
    if how == "given away":
        assert path.stat().st_uid == ALICE
        assert path.with_suffix(".sha256").exists()
        path.write_bytes(path.read_bytes().replace(f'"uid":{ALICE}'.encode(), f'"uid":{BOB}'.encode()))
    counter = Counter(settings, spool)
    while not (tmp_path / "tmp" / "health.count").exists():
        counter.step(60)
    count = msgspec.json.decode((tmp_path / "tmp" / "health.count").read_bytes(), type=Count)
    assert count.owners.keys() == {ALICE}
    assert count.owners[ALICE].entries == 1
    if how == "no list":
        repair(spool, found[0])
        assert_answer(path, ALICE)
        assert Check(box.settings, "check").unexplained() == []


@needs_root
def test_who_has_used_up_a_share_waits_and_others_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(tmp_path)
    full = {ALICE}
    monkeypatch.setattr(box.intake._shares, "has_room", lambda uid, _=0: uid not in full)
    box.drop("hw (1).json", owner=ALICE)
    box.drop("hw (2).json", owner=BOB)
    box.settle()
    assert box.names("incoming") == {"hw (1).json"}
    full.clear()
    box.settle()
    assert box.names("incoming") == set()
    assert box.names("done") == {"hw%20%281%29.refused.json", "hw%20%282%29.refused.json"}


def test_one_that_cannot_be_looked_at_or_answered_holds_up_no_other(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    real = attributes.owner

    def owner(path: str) -> attributes.Owned | None:
        if path.endswith("a b.json"):
            raise PermissionError(13, "mounted", path)
        return real(path)

    monkeypatch.setattr(attributes, "owner", owner)
    for name in ("a b.json", "c d.json", "e.json"):
        box.drop(name)
    box.settle()
    assert box.names("incoming") == {"a b.json"}
    assert box.names("done") == {"c%20d.refused.json"}
    assert len(box.names("new")) == 1


def test_what_intake_says_of_them_is_one_line_a_minute(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for number in range(20):
        box.drop(f"a\n{number}.zip")
    box.settle()
    assert len(box.names("done")) == 20
    assert sum("this is not the name of a submission" in record.getMessage() for record in caplog.records) == 1
