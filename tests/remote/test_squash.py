"""Daemons without rights over files of others, as on a server that squashes root: what is lost, and who says so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from spoold.actors.intake import Intake
from spoold.config import Settings, SpoolSettings
from spoold.doctor import spool as doctor
from spoold.model.findings import Level
from spoold.spool import layout
from tests.names import named
from tests.remote.room import Room, User
from tests.rights import assert_answer, in_child

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def settings(room: Room, bob: User) -> Settings:
    """Return the settings of a spool that bob owns."""
    spool = room.directory / "squashed"
    shutil.rmtree(spool, ignore_errors=True)
    layout.create(str(spool))
    for directory in layout.DIRECTORIES:
        os.chown(spool / directory.path, bob.uid, bob.gid)
    return msgspec.structs.replace(room.settings, spool=SpoolSettings(path=str(spool), settle=0.2))


def as_user(user: User, act: Callable[[], None]) -> None:
    """Run a function as a user without capabilities."""
    in_child(act, user.uid, user.gid)


def test_a_file_that_may_not_be_read_is_refused_and_holds_nobody_up(
    settings: Settings, room: Room, ann: User, bob: User
) -> None:
    root = Path(settings.spool.path)
    closed, data = room.request()
    readable, _ = room.request()
    for id_, mode in ((closed, 0o600), (readable, 0o644)):
        path = root / "incoming" / f"{id_}.json"
        path.write_bytes(data)
        path.chmod(mode)
        os.chown(path, ann.uid, ann.gid)

    def take_in() -> None:
        intake = Intake(settings)
        intake.start()
        room.until(lambda: intake.step() >= 0 and not list((root / "incoming").iterdir()))

    as_user(bob, take_in)
    assert (root / "new" / named(readable, owner=ann.uid)).exists()
    response = root / "done" / f"{closed}.response.json"
    assert b"may not read" in response.read_bytes()
    assert_answer(response, ann.uid)
    assert response.stat().st_uid == bob.uid
    assert ann.run("cat", str(response)).returncode == 0


def test_the_doctor_says_so(settings: Settings, bob: User) -> None:
    def ask() -> None:
        (found,) = [each for each in doctor.examine(settings) if each.what.startswith("files of other users")]
        assert found.level is Level.WARNING
        assert "no_root_squash" in found.remedy

    as_user(bob, ask)
    (found,) = [each for each in doctor.examine(settings) if each.what.startswith("files of other users")]
    assert found.level is Level.FINE
