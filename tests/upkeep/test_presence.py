"""A role's file tells which host has the role. tests/test_hosts.py tests more, with processes that stand for hosts."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from spoold.config import LeaseSettings
from spoold.host import machine
from spoold.model.errors import OperatorError
from spoold.spool import layout
from spoold.upkeep.presence import Presence, elsewhere

LEASE = LeaseSettings(renewal=0.05, limit=0.5)
LONG = LeaseSettings(renewal=0.05, limit=60.0)  # for tests that don't wait for its end


@pytest.fixture
def root(tmp_path: Path) -> str:
    layout.create(str(tmp_path))
    return str(tmp_path)


def presence(root: str, lost: list[str], lease: LeaseSettings = LEASE) -> Presence:
    return Presence(root, "intake", lease, lost=lambda: lost.append("lost"))


def on(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr(machine, "host_name", lambda: host)


def test_a_host_takes_over_its_own_at_once(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon was killed, and the lock on this host tells that it no longer runs."""
    lost: list[str] = []
    first = presence(root, lost, LONG)
    first.take()
    monkeypatch.setattr(Presence, "_is_renewed", lambda *_: pytest.fail("it waits for itself"))
    second = presence(root, lost, LONG)
    second.take()
    assert elsewhere(root, "intake") == ""
    second.give_up()
    first.give_up()


def test_another_host_waits_for_a_dead_one(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    Path(root, "tmp", "intake.host").write_text("dead 123")
    assert elsewhere(root, "intake") == "dead"
    made = presence(root, [])
    made.take()
    assert time.monotonic() - began >= LEASE.limit * 0.9
    made.give_up()
    assert not Path(root, "tmp", "intake.host").exists()


def test_a_time_in_the_future_keeps_nobody_out(root: str) -> None:
    path = Path(root, "tmp", "intake.host")
    path.write_text("dead 123")
    os.utime(path, (time.time() + 3600,) * 2)
    made = presence(root, [])
    made.take()
    made.give_up()


def test_one_that_lives_keeps_others_out_and_one_that_stalled_ends(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[str] = []
    on(monkeypatch, "one 1")
    first = presence(root, lost, LONG)
    first.take()
    on(monkeypatch, "two 2")
    with pytest.raises(OperatorError, match="on the host 'one'"):
        presence(root, [], LONG).take()
    Path(root, "tmp", "intake.host").unlink()
    second = presence(root, [], LONG)
    second.take()
    deadline = time.monotonic() + 60
    while not lost:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.give_up()
    assert Path(root, "tmp", "intake.host").read_text() == "two 2", "the file is the other host's"
    second.give_up()


def test_a_file_without_a_word_is_no_bug(root: str) -> None:
    """A loss of power may leave the file empty."""
    Path(root, "tmp", "intake.host").touch()
    made = presence(root, [])
    made.take()
    made.give_up()
