"""A build cannot hide what it writes: a look finds it, or the account of the disk does not come out even."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from spoold.model.errors import TemporaryError
from spoold.model.job import BuildResult
from spoold.model.response import Outcome
from spoold.nix import hidden
from spoold.nix.build import NixBuilder
from tests.nix import room

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
def numbers():
    # Slow down from 60 on. Space that others free on the disk may hide the bytes that were written so far.
    for number in range(600):
        yield number
        if number > 60:
            time.sleep(0.5)
def many():
    for number in numbers():
        unlinked()
    time.sleep(600)
"""
# Each process inherits the open files of the one before and may open one more. It ends as soon as the next one is born.
RELAY = """
if os.fork():
    time.sleep(600)
more = time.monotonic()
for number in range(1 << 62):
    if number < 60 or time.monotonic() > more:
        more = time.monotonic() + 0.5
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
    while written < 600:
        time.sleep(0.03 if written < 60 else 0.5)
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
    many()
threading.Thread(target=apart).start()
time.sleep(600)
"""
FIRST_THREAD_IS_GONE = """
threading.Thread(target=many).start()
libc.syscall(60 if os.uname().machine == "x86_64" else 93, 0)
"""
IN_FLIGHT = """
here, there = socket.socketpair()
for number in numbers():
    file = unlinked()
    socket.send_fds(here, [b"x"], [file])
    os.close(file)
time.sleep(600)
"""


pytestmark = pytest.mark.usefixtures("python_shell")  # otherwise Python would have to be built within the limit


def built(builder: NixBuilder, code: str) -> BuildResult:
    return room.build(room.limited(builder, output=LIMIT, silence=300, time=300), room.SHELL % python_build(code))


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(THREAD_OF_ITS_OWN, id="files of one thread"),
        pytest.param(FIRST_THREAD_IS_GONE, id="files of a process whose first thread is gone"),
    ],
)
def test_what_a_build_hides_is_found(nix_builder: NixBuilder, code: str) -> None:
    result = built(nix_builder, code)
    assert result.phase.outcome is Outcome.OUTPUT_LIMIT, result.phase.stderr


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(RELAY, id="files handed on"),
        pytest.param(MOVING, id="a directory that moves"),
        pytest.param(IN_FLIGHT, id="files on their way through a socket"),
    ],
)
def test_what_no_look_can_find_is_missed_on_the_disk(nix_builder: NixBuilder, code: str) -> None:
    """A look may find it all the same, because nobody knows when it comes."""
    try:
        result = built(nix_builder, code)
    except TemporaryError as error:
        assert "that were found in no build" in str(error)  # noqa: PT017 - or it ended in the other way
    else:
        assert result.phase.outcome is Outcome.OUTPUT_LIMIT, result.phase.stderr


def test_sockets_are_bounded(nix_builder: NixBuilder) -> None:
    """No control group of v1 counts the data that waits in sockets."""
    code = "kept = [socket.socketpair() for _ in range(600)]\ntime.sleep(600)\n"
    result = built(nix_builder, f"import resource\nresource.setrlimit(7, (4096, 4096))\n{code}")
    assert result.phase.outcome is Outcome.OUTPUT_LIMIT
    assert f"more than {hidden.SOCKETS} sockets" in result.phase.stderr


# --- how the looks find it


def test_what_processes_wrote_is_counted_when_they_are_gone(tmp_path: Path) -> None:
    ledger = hidden.Ledger()
    code = f"open('{tmp_path}/x', 'wb').write(bytes(3000000)); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as writes:
        assert writes.stdin is not None
        assert writes.stdout is not None
        writes.stdout.readline()
        ledger.look([writes.pid, 0])
        assert 3_000_000 <= ledger.wrote < 4_000_000
        writes.stdin.write(b"\n")
    ledger.look([writes.pid])
    ledger.look([])
    assert 3_000_000 <= ledger.wrote == ledger.at_most < 4_000_000


def test_threads_that_share_their_files_are_looked_at_once() -> None:
    end = threading.Event()
    threads = [threading.Thread(target=end.wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    try:
        assert len(list(hidden._threads_apart(os.getpid()))) == 1
    finally:
        end.set()
        for thread in threads:
            thread.join()
