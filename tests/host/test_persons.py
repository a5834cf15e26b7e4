"""The person behind a uid: the holder of its range in /etc/subuid. And the weights of persons."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from spoold.host import accounts
from spoold.host.persons import Persons, weights
from spoold.model.errors import OperatorError

ALICE, BOB = 1001, 1002
NAMES = {"root": 0, "alice": ALICE, "bob": BOB, "777": 4321}


@pytest.fixture
def subuid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the file of ranges, for a host with these users."""
    monkeypatch.setattr(accounts, "uid_of", NAMES.get)
    monkeypatch.setattr(accounts, "members", {"staff": {"alice", "bob", "gone"}, "ta": {"bob"}}.__getitem__)
    return tmp_path / "subuid"


def persons(path: Path, *lines: str) -> Persons:
    path.write_text("".join(f"{line}\n" for line in lines))
    return Persons(str(path))


def test_a_subordinate_uid_counts_as_its_holder(subuid: Path) -> None:
    found = persons(subuid, "alice:100000:65536", f"{BOB}:165536:65536", "root:300000:10", "777:400000:10")
    assert {found.of(uid) for uid in (ALICE, 100_000, 165_535)} == {ALICE}
    assert {found.of(uid) for uid in (BOB, 165_536, 231_071)} == {BOB}
    assert found.of(300_009) == found.of(0) == 0
    assert found.of(400_000) == 4321, "digits are a user name if there is such a user"
    assert [found.of(uid) for uid in (99_999, 231_072, -1)] == [99_999, 231_072, -1]


def test_of_ranges_that_overlap_the_first_counts_and_holders_may_be_subordinate(subuid: Path) -> None:
    found = persons(subuid, "alice:100000:100", "bob:100050:100", "100010:200000:100", "200005:300000:100")
    assert [found.of(uid) for uid in (100_060, 100_120)] == [ALICE, BOB]
    assert [found.of(uid) for uid in (200_050, 300_000)] == [ALICE, ALICE]


def test_a_holder_without_a_name_here_is_one_person_all_the_same(subuid: Path) -> None:
    found = persons(subuid, "gone:100000:65536")
    assert {found.of(uid) for uid in (100_000, 100_001, 165_535)} == {100_000}


def test_ranges_in_a_circle_come_to_an_end(subuid: Path) -> None:
    found = persons(subuid, f"alice:{ALICE}:10", "500:600:10", "600:500:10")
    assert found.of(1005) == ALICE
    assert found.of(605) in (500, 600)


def test_what_is_no_range_is_none(subuid: Path) -> None:
    found = persons(
        subuid, "", "# comment", "alice", "alice:x:10", "alice:100:-1", "alice:200:0", ":300:5", "bob:400:5 "
    )
    assert [found.of(uid) for uid in (100, 200, 300, 400)] == [100, 200, 300, BOB]


def test_the_file_is_followed(subuid: Path) -> None:
    found = Persons(str(subuid))
    assert found.of(100_000) == 100_000
    subuid.write_text("alice:100000:65536\n")
    assert found.of(100_000) == 100_000, "the file is read by look(), not for each uid"
    found.look()
    assert found.of(100_000) == ALICE
    private = subuid.with_suffix(".new")
    private.write_text("bob:100000:65536\n")
    private.rename(subuid)
    found.look()
    assert found.of(100_000) == BOB
    subuid.unlink()
    found.look()
    assert found.of(100_000) == 100_000


def test_a_file_that_cannot_be_read_changes_nothing(subuid: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = persons(subuid, "alice:100000:65536")
    subuid.unlink()
    subuid.mkdir()
    found.look()
    assert found.of(100_000) == ALICE
    assert "its earlier content stays in use" in caplog.text


def test_weights_are_of_users_uids_and_groups(subuid: Path) -> None:
    assert weights({"group:staff": 2.0, "group:ta": 4.0, "alice": 1.5, "uid:9": 0.5}) == {
        ALICE: 1.5,
        BOB: 4.0,
        9: 0.5,
    }
    assert weights({}) == {}


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("nobody-here", r"turns.weights: there is no user 'nobody-here' on this host: write .*group:NAME"),
        ("group:none", r"turns.weights: 'group:none': there is no group 'none' on this host"),
        ("uid:alice", r"turns.weights: 'uid:alice': a uid is a number"),
        ("users:x", r"turns.weights: there is no user 'users:x'"),
    ],
)
def test_a_weight_of_nobody_is_a_mistake(subuid: Path, key: str, said: str) -> None:
    with pytest.raises(OperatorError, match=said):
        weights({key: 2.0})


def test_real_groups_and_users() -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    user = pwd.getpwuid(os.getuid()).pw_name
    assert weights({f"group:{group}": 3.0, user: 5.0})[os.getuid()] == 5.0
