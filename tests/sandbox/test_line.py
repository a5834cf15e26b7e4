"""A recycled container's own line: what goes through it, that nobody else finds it, and how jobs run without it."""

from __future__ import annotations

import socket
import struct
import threading
from pathlib import Path

import pytest

from spoold.engines.docker import container, line
from spoold.engines.docker.framing import Attached
from spoold.sandbox.facts import LINE
from spoold.sandbox.stream import ClosedError, Stream
from tests.sandbox.cells import Make, go, make, waiting
from tests.sandbox.conftest import make_job

__all__ = ["make"]  # a fixture


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let lines be made in a directory of the test."""
    directory = tmp_path / "lines"
    directory.mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(directory))
    return directory


def is_used(make: Make, shell: str) -> bool:
    """Run a job. Tell whether it used a line."""
    sandbox = make()
    assert go(sandbox, make_job("echo hi", shell=shell)).run.stdout == "hi\n"
    assert sandbox.plan is not None
    assert waiting(sandbox).transport.has_line == sandbox.plan.line
    line: bool = sandbox.plan.line
    return line


@pytest.mark.docker
@pytest.mark.usefixtures("docker_host")  # only Docker stands between an executor and its containers
def test_a_recycled_container_calls(make: Make, base: Path, plain_shell: str) -> None:
    assert is_used(make, plain_shell)
    assert list(base.iterdir()) == []


@pytest.mark.docker
def test_a_job_finds_no_socket(make: Make, base: Path, plain_shell: str) -> None:
    script = f"ls -A {LINE}; stat -c %a {LINE}; touch {LINE}/x; stat {LINE}/socket; grep -c {LINE} /proc/net/unix"
    ran = go(make(), make_job(script, shell=plain_shell)).run
    assert ran.stdout == "755\n0\n"
    assert ran.stderr.count("No such file or directory") + ran.stderr.count("Read-only file system") == 2


class Unseen(line.Listener):
    """A socket in a directory that the engine's mounts do not find."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = "/nonexistent/line"


@pytest.mark.docker
@pytest.mark.usefixtures("docker_host")  # only Docker stands between an executor and its containers
@pytest.mark.parametrize("fault", ["no directory", "a path that is too long", "unseen by the engine", "no socket"])
def test_without_a_line_all_goes_through_the_engine(
    make: Make, base: Path, plain_shell: str, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    if fault == "no directory":
        base.rmdir()
    elif fault == "a path that is too long":
        long = base / ("x" * 100)
        long.mkdir()
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(long))
    elif fault == "unseen by the engine":
        monkeypatch.setattr(container, "Listener", Unseen)
    else:
        monkeypatch.setattr(line, "LINE_NAME", "another")
    assert not is_used(make, plain_shell)


def frame(number: int, data: bytes) -> bytes:
    """Return the frame that Docker makes of a container's output."""
    return struct.pack(">B3xI", number, len(data)) + data


def test_the_last_words_of_a_supervisor_come_by_the_attached_stream() -> None:
    ours, theirs = socket.socketpair()
    attached, engine = socket.socketpair()
    stream = Stream(line.Line(ours, Attached(attached)), threading.Event())
    theirs.close()
    engine.sendall(frame(2, b"cell.c:1: unshare: Operation not permitted\n"))
    engine.close()
    with pytest.raises(ClosedError, match=r"ended before its time; its last words: 'cell\.c:1: unshare"):
        stream.greeting(10.0)
    stream.close()


def test_a_supervisor_that_ended_without_a_word_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    attached, engine = socket.socketpair()
    stream = Stream(line.Line(ours, Attached(attached)), threading.Event())
    theirs.close()
    engine.close()
    with pytest.raises(ClosedError, match=r"ended before its time$"):
        stream.greeting(10.0)
    stream.close()


def test_what_is_in_a_directory_that_others_reach_is_in_one_that_they_do_not(base: Path) -> None:
    listener = line.Listener()
    (outer,) = base.iterdir()
    assert outer.stat().st_mode & 0o777 == 0o700
    assert Path(listener.directory).parent == outer
    listener.close()
    assert list(base.iterdir()) == []
