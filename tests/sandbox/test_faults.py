"""Whose fault it is where something goes wrong around a job, without an engine: only what the job did is the job's."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from spoold.sandbox.inside import child, supervisor
from spoold.sandbox.inside.messages import Message, Parcel, Refused
from spoold.sandbox.inside.wire import GoneError
from spoold.sandbox.runner import Runner
from spoold.sandbox.stream import BrokenError

JOB = Parcel(files=[], stdin=0, viewed=0, store=[])


class Listening:
    """A host that hears what a supervisor says, and says nothing."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    def send(self, message: Message) -> None:
        self.heard.append(message)

    def any_of(self, *_: type[Message]) -> Message:
        raise GoneError


def receive(monkeypatch: pytest.MonkeyPatch, number: int) -> list[Message]:
    """Return what a supervisor says that cannot write a job's files for that reason; raise what it raises."""

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(supervisor, "receive", fail)
    tools: Any = type("Tools", (), {"host": Listening()})
    with pytest.raises(GoneError):
        supervisor._serve(tools, JOB)
    heard: list[Message] = tools.host.heard
    return heard


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM])
def test_files_that_have_no_room_are_refused(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    assert receive(monkeypatch, number) == [Refused(reason=os.strerror(number).encode())]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EBADF, errno.EPERM])
def test_files_that_cannot_be_written_through_no_fault_of_theirs_are_a_bug(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with pytest.raises(OSError, match=os.strerror(number)):
        receive(monkeypatch, number)


def test_a_work_directory_that_is_not_there_is_a_bug(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(child, "WORK", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError):
        child._enter_work()


def test_a_bug_between_two_jobs_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        """A stream to a supervisor that failed after its last job."""

        def arrived(self, _: type[Message]) -> Message:
            raise BrokenError("KeyError: 'left out'\n  cell.py:1 in leave")

    transport: Any = type("Carrier", (), {"stream": Failing()})
    plan: Any = None
    runner = Runner(transport, plan)
    runner.due = True
    assert not runner.alive()
    assert "a supervisor failed between two jobs" in caplog.text
    assert "cell.py:1 in leave" in caplog.text
