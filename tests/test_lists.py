"""``init``, ``doctor`` and the daemons where access control lists cannot protect responses."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from spoold.config import Settings, SpoolSettings
from spoold.host import fsops
from spoold.host.accounts import Accounts
from spoold.model.errors import OperatorError
from spoold.model.findings import Level
from spoold.spool import layout, lists
from tests.rights import in_child
from tests.test_disk_errors import mounted

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
GROUP = 64_000
UIDS = {user: 64_001 + number for number, user in enumerate(layout.USERS.values())}
OWNER = {"answers": "owner"}


@pytest.fixture
def pretending(place: Path) -> Iterator[Path]:
    """Yield a spool on a file system that stores lists but ignores them: rights follow modes alone."""
    with mounted(place):
        yield place / "mount" / "pretending"


def settings_for(root: Path, **changes: object) -> Settings:
    return Settings(spool=SpoolSettings(path=str(root), **changes))  # type: ignore[arg-type]


def ctl(settings: Settings, config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    config.write_bytes(msgspec.toml.encode(msgspec.to_builtins(settings)))
    command = [sys.executable, "-m", "spoold.cli.ctl", "--config", str(config), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_only_a_try_as_several_users_tells(pretending: Path, place: Path) -> None:
    """The list can be set, and its user is kept out all the same."""
    layout.create(str(pretending), Accounts(GROUP, UIDS))
    assert lists.keeps_lists(str(pretending))
    assert "an owner cannot read" in (lists.wrong(str(pretending)) or "")
    done = ctl(settings_for(pretending), place / "config", "init")
    assert done.returncode == 1
    assert "an owner cannot read" in done.stderr
    assert 'answers = "owner"' in done.stderr
    found = json.loads(ctl(settings_for(pretending), place / "config", "doctor", "--json").stdout)["findings"]
    assert [each["level"] for each in found if each["what"] == lists.WHAT] == ["refused"]
    done = ctl(settings_for(pretending, **OWNER), place / "config", "init")
    assert (done.returncode, done.stderr) == (0, f"{pretending}: nothing to do\n")
    (finding,) = lists.examine(settings_for(pretending, **OWNER))
    assert (finding.level, "can change and remove" in finding.detail) == (Level.WARNING, True)
    assert os.listdir(pretending / "done") == os.listdir(pretending / "tmp") == []


def test_where_lists_work(place: Path) -> None:
    root = place / "spool"
    layout.create(str(root), Accounts(GROUP, UIDS))
    assert lists.settle(settings_for(root)) == ""
    (finding,) = lists.examine(settings_for(root))
    assert finding.level is Level.FINE
    lists.require(settings_for(root))
    assert "without answers" in ctl(settings_for(root, **OWNER), place / "config", "init").stderr
    (finding,) = lists.examine(settings_for(root, **OWNER))
    assert (finding.level, "access control lists work here" in finding.detail) == (Level.WARNING, True)


def test_no_daemon_starts_on_a_file_system_without_lists(place: Path) -> None:
    """In a shared spool without lists nobody could read their response."""
    subprocess.run(["mount", "-t", "ramfs", "ramfs", str(place)], check=True)
    try:
        root = place / "spool"
        layout.create(str(root), Accounts(GROUP, UIDS))
        (place / "config").write_bytes(msgspec.toml.encode(msgspec.to_builtins(settings_for(root))))
        command = [sys.executable, "-m", "spoold.cli.daemon", "--config", str(place / "config"), "health"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 1
        assert "no access control list can be set on this file system" in done.stderr
        assert 'answers = "owner"' in done.stderr
        assert "no access control list can be set" in ctl(settings_for(root), place / "config", "init").stderr
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("wrong", ["chmod 2770 done", "chmod 2777 done"])
def test_what_else_keeps_owners_out_or_lets_them_in(place: Path, wrong: str) -> None:
    root = place / "spool"
    layout.create(str(root), Accounts(GROUP, UIDS))
    subprocess.run(wrong.split(), cwd=root, check=True)
    found = lists.wrong(str(root))
    assert found == ("an owner can rename a response" if "2777" in wrong else f"an owner {CANNOT}")


CANNOT = "cannot read a response that has an access control list (Permission denied)"


def test_who_is_not_root_is_told_so(place: Path) -> None:
    """In the unit of `spoolctl init`, root may not become other users either."""
    root = place / "spool"
    layout.create(str(root))
    for directory in layout.DIRECTORIES:
        os.chown(root / directory.path, 64_010, 64_010)

    def look() -> list[str]:
        (finding,) = lists.examine(settings_for(root))
        return [finding.level.value, lists.settle(settings_for(root))]

    assert in_child(look, 64_010) == [Level.UNKNOWN.value, ""]


def test_a_full_disk_keeps_no_daemon_from_starting(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    layout.create(str(place / "spool"), Accounts(GROUP, UIDS))
    monkeypatch.setattr(fsops, "write_private", full)
    lists.require(settings_for(place / "spool"))


def test_a_desk_is_told_and_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "keeps_lists", lambda _: False)
    desk, shared = place / "desk", place / "shared"
    layout.create(str(desk))
    layout.create(str(shared), Accounts(GROUP, UIDS))
    lists.require(settings_for(desk))
    assert "Other users cannot read" in lists.settle(settings_for(desk))
    for ask in (lists.require, lists.settle):
        with pytest.raises(OperatorError, match='answers = "owner"'):
            ask(settings_for(shared))
        ask(settings_for(shared, **OWNER))
