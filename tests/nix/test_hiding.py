"""What a build writes is measured whatever it does to hide that: where a look cannot see it, an exact one does."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from spoold.model.errors import TemporaryError
from spoold.model.job import BuildResult
from spoold.model.response import Outcome
from spoold.nix import measure
from spoold.nix.build import NixBuilder
from tests.nix import room
from tests.nix.setups import SYSTEMS_PYTHON

MIB = 1024**2
LIMIT = 20 * MIB


def python_build(code: str) -> str:
    """Return the attribute of a shell whose build runs ``code`` and fails."""
    inputs = f"{{ p = pkgs.python3; passAsFile = [ ''code'' ]; code = ''{WRITES}{code}''; }}"
    return f'X = pkgs.runCommand "hides-{time.time_ns()}" {inputs} "$p/bin/python3 $codePath; exit 1";'


WRITES = """
import ctypes, os, socket, struct, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def unlinked(size=2000000):
    file = os.open("x", os.O_CREAT | os.O_RDWR | os.O_TRUNC)
    os.write(file, bytes(size))
    os.unlink("x")
    return file
"""
# One after the other opens what it inherits no more of, and is gone as soon as the next is born.
RELAY = """
if os.fork():
    time.sleep(600)
for number in range(1 << 62):
    if number < 60:
        unlinked()
    if os.fork():
        os._exit(0)
"""
# A directory that is always where the walk has been already, or is yet to come.
MOVING = """
for number in range(600):
    os.mkdir(f"e{number}")
order = [name for name in os.listdir() if name[0] == "e"]
before, first, between, last = (order[number] for number in (50, 150, 300, 500))
os.mkdir(f"{first}/d")
events = libc.inotify_init()
watches = {libc.inotify_add_watch(events, name.encode(), 0x20): name for name in (before, between)}
if os.fork() == 0:
    written = 0
    while written < 60:
        time.sleep(0.03)
        for name in (first, last):
            try:
                with open(f"{name}/d/{written}", "wb") as file:
                    file.write(bytes(2000000))
                written += 1
                break
            except OSError:
                pass
    time.sleep(600)
while True:
    data = os.read(events, 65536)
    while data:
        watch, _, _, length = struct.unpack_from("iIII", data)
        data = data[16 + length:]
        here, there = (first, last) if watches[watch] == before else (last, first)
        try:
            os.rename(f"{here}/d", f"{there}/d")
        except OSError:
            pass
"""
THREAD_OF_ITS_OWN = """
def apart():
    libc.unshare(0x400)
    for number in range(60):
        unlinked()
    time.sleep(600)
threading.Thread(target=apart).start()
time.sleep(600)
"""
FIRST_THREAD_IS_GONE = """
def other():
    time.sleep(1)
    for number in range(60):
        unlinked()
    time.sleep(600)
threading.Thread(target=other).start()
libc.syscall(60 if os.uname().machine == "x86_64" else 93, 0)
"""
IN_FLIGHT = """
here, there = socket.socketpair()
for number in range(60):
    file = unlinked()
    socket.send_fds(here, [b"x"], [file])
    os.close(file)
time.sleep(600)
"""


def built(builder: NixBuilder, code: str) -> BuildResult:
    return room.build(room.limited(builder, output=LIMIT, silence=300, time=300), room.SHELL % python_build(code))


@pytest.mark.nix
@pytest.mark.parametrize(
    "code",
    [
        pytest.param(RELAY, id="files handed on"),
        pytest.param(MOVING, id="a directory that moves"),
        pytest.param(THREAD_OF_ITS_OWN, id="files of one thread"),
        pytest.param(FIRST_THREAD_IS_GONE, id="files of a process whose first thread is gone"),
    ],
)
def test_what_a_build_hides_is_found(nix_builder: NixBuilder, code: str) -> None:
    result = built(nix_builder, code)
    assert result.phase.outcome is Outcome.OUTPUT_LIMIT, result.phase.stderr


@pytest.mark.nix
def test_what_is_in_flight_can_be_measured_by_nobody_and_ends_the_build(nix_builder: NixBuilder) -> None:
    with pytest.raises(TemporaryError, match="on their way through sockets"):
        built(nix_builder, IN_FLIGHT)


# --- how it is found


UID = 64321  # nobody's; builds have others
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def forking() -> Iterator[int]:
    """Processes of UID, of which each is born from one that ends at once."""
    code = f"import os\nos.setresuid({UID}, {UID}, {UID})\nwhile True:\n    if os.fork(): os._exit(0)"
    subprocess.run([SYSTEMS_PYTHON, "-c", code], check=True, timeout=60)
    yield UID
    while any(measure.processes_of(UID)):
        measure._signal_all(UID, 9)


@needs_root
def test_processes_that_only_fork_come_to_a_stop_and_go_on(forking: int) -> None:
    with measure.standing_still(forking):
        before = list(measure.processes_of(forking))
        assert before
        for _ in range(20):
            assert list(measure.processes_of(forking)) == before
            time.sleep(0.001)
    room.until(lambda: list(measure.processes_of(forking)) != before)


@needs_root
def test_a_process_that_does_not_stop_is_not_taken_for_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "STANDSTILL", 0.1)
    monkeypatch.setattr(measure, "_signal_all", lambda _uid, _number: None)
    code = f"import os, time\nos.setresuid({UID}, {UID}, {UID})\nprint(flush=True)\nwhile True: pass"
    with subprocess.Popen([SYSTEMS_PYTHON, "-c", code], stdout=subprocess.PIPE) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        with pytest.raises(TimeoutError), measure.standing_still(UID):
            pass
        busy.kill()


def test_files_in_flight_are_counted() -> None:
    here, there = socket.socketpair()
    with here, there:
        before = measure.in_flight([os.getpid()])
        socket.send_fds(here, [b"x"], [0, 1, 2])
        assert measure.in_flight([os.getpid()]) == before + 3
        _, files, _, _ = socket.recv_fds(there, 10, 3)
        assert measure.in_flight([os.getpid()]) == before
        for file in files:
            os.close(file)


def test_threads_that_share_their_files_are_looked_at_once() -> None:
    end = threading.Event()
    threads = [threading.Thread(target=end.wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    try:
        assert len(list(measure._threads_apart(os.getpid()))) == 1
    finally:
        end.set()
        for thread in threads:
            thread.join()
