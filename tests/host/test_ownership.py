"""The check finds a path that users other than root and ourselves can change, at any place on the way."""

from __future__ import annotations

import os
import pwd
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from spoold.host import acl
from spoold.host.ownership import settled
from spoold.model.errors import OperatorError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
STRANGER, EMPTY_GROUP = 64_101, 64_102
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file three directories deep. We own all of them."""
    made = tmp_path / "a" / "b" / "file"
    made.parent.mkdir(parents=True)
    made.write_bytes(b"")
    made.chmod(0o644)
    return made


def refused(path: Path, *, itself: bool = True) -> str:
    with pytest.raises(OperatorError) as caught:
        settled(str(path), "Mend it", itself=itself)
    assert str(caught.value).endswith(". Mend it")
    return str(caught.value)


def test_what_is_ours_alone_is_settled(file: Path) -> None:
    assert settled(str(file), "") == str(file)
    assert settled(f"{file.parent}/./../b//file", "") == str(file)


def test_links_are_followed(file: Path) -> None:
    (file.parent / "near").symlink_to("../b/file")
    (file.parent.parent / "far").symlink_to(file.parent)
    assert settled(str(file.parent.parent / "far" / "near"), "") == str(file)
    (file.parent / "round").symlink_to("round")
    assert "too many symbolic links" in refused(file.parent / "round")


def acl_of_a_stranger(path: Path) -> None:
    entries = [(0x01, 6, -1), (0x02, 6, STRANGER), (0x04, 4, -1), (0x10, 6, -1), (0x20, 4, -1)]
    packed = b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(path, acl.NAME, struct.pack("<I", 2) + packed)
    except OSError as error:
        pytest.skip(f"this file system has no access control lists: {error}")


def group_of_nobody(path: Path) -> None:
    os.chown(path, 0, NOBODY.pw_gid)
    path.chmod(path.stat().st_mode | 0o020)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another's": (lambda path: os.chown(path, STRANGER, 0), f"belongs to {STRANGER}"),
    "everybody's": (lambda path: path.chmod(path.stat().st_mode | 0o002), "by everybody"),
    "a group's with members": (group_of_nobody, "nobody"),
    "a list's": (acl_of_a_stranger, "access control list"),
}


@pytest.mark.parametrize("where", ["file", "b", "a"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_a_stranger_can_change_is_named(file: Path, where: str, change: str) -> None:
    found = next(path for path in (file, *file.parents) if path.name == where)
    make, why = CHANGES[change]
    make(found)
    said = refused(file)
    assert said.startswith(str(found))
    assert why in said


def test_a_group_without_other_members_is_nobody(file: Path) -> None:
    os.chown(file.parent, 0, EMPTY_GROUP)
    file.parent.chmod(0o2775)
    assert settled(str(file), "") == str(file)


def test_a_sticky_directory_is_as_good_as_what_is_in_it(file: Path) -> None:
    file.parent.chmod(0o1777)
    assert settled(str(file), "") == str(file)
    os.chown(file, STRANGER, STRANGER)
    assert refused(file).startswith(str(file))


def test_a_link_in_a_strangers_directory_leads_where_they_like(file: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, STRANGER, STRANGER)
    (theirs / "link").symlink_to(file)
    assert refused(theirs / "link").startswith(f"{theirs} belongs to")
    (tmp_path / "ours").symlink_to(theirs / "link")
    assert refused(tmp_path / "ours").startswith(f"{theirs} belongs to")


def test_a_strangers_link_in_a_sticky_directory(file: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / "link").symlink_to(file)
    assert settled(str(tmp_path / "link"), "") == str(file)
    os.chown(tmp_path / "link", STRANGER, STRANGER, follow_symlinks=False)
    assert refused(tmp_path / "link").startswith(f"{tmp_path}/link belongs to")


def test_the_name_alone(file: Path) -> None:
    os.chown(file, STRANGER, STRANGER)
    file.chmod(0o666)
    assert settled(str(file), "", itself=False) == str(file)
    file.parent.chmod(0o777)
    assert refused(file, itself=False).startswith(str(file.parent))


def test_one_more_owner(file: Path) -> None:
    os.chown(file, STRANGER, STRANGER)
    assert settled(str(file), "", also={STRANGER}) == str(file)


def test_what_cannot_be_looked_at(file: Path) -> None:
    assert "No such file" in refused(file / ".." / "none")
    assert "cannot be looked at" in refused(file / "below")
