"""Data in sockets counts as the job's memory, on both versions of control groups."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from spoold.model.limits import MIB
from spoold.model.response import Outcome
from tests.sandbox.conftest import RUN, Run

# Each program puts at least 48 MB into sockets and then waits. Where the kernel counts this memory, it prints the
# count.
SETUP = """
import os, socket, sys, time
kept, flood = [], 0
def name(kind, family=socket.AF_INET):
    made = socket.socket(family, kind)
    made.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    kept.append(made)
    return made
def fill(made, piece):
    made.setblocking(False)
    try:
        while made.send(piece): pass
    except BlockingIOError: pass
def fork():
    for _ in range(5):
        if not os.fork(): break
"""
TCP = """
fork()
for _ in range(50):
    server = name(socket.SOCK_STREAM); server.listen()
    for made in (socket.create_connection(server.getsockname()), server.accept()[0]):
        fill(made, PIECE); kept.append(made)
"""
UDP = """
fork()
for _ in range(80):
    into = name(socket.SOCK_DGRAM, FAMILY); out = socket.socket(FAMILY, socket.SOCK_DGRAM)
    for _ in range(60 if len(PIECE) > 1 else 400): out.sendto(PIECE, into.getsockname())
"""
CORKED = """
fork()
for _ in range(220):
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); made.connect(("127.0.0.1", 9)); kept.append(made)
    for _ in range(16): made.send(PIECE, socket.MSG_MORE)
"""
HIDDEN = """
fork()
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for _ in range(80):
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); out.bind(("127.0.0.1", 0))
    into = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); into.connect(out.getsockname()); kept.append(into)
    for _ in range(60 if len(PIECE) > 1 else 400): out.sendto(PIECE, into.getsockname())
    assert libc.connect(into.fileno(), bytes(16), 16) == 0 and into.getsockname()[1] == 0
"""
UNIX = """
fork()
for _ in range(60):
    for made in socket.socketpair(socket.AF_UNIX, KIND): fill(made, PIECE); kept.append(made)
"""
WAIT = "print('filled', flush=True); time.sleep(30)\n"
PATIENT = replace(RUN, time=300, cpu_time=300, open_files=256, memory=64 * MIB)


@dataclass(frozen=True)
class Flood:
    """A way to make the kernel hold memory."""

    program: str
    values: str = ""


FLOODS = {
    "TCP": Flood(TCP, "PIECE = b'x' * 65536"),
    "TCP in small pieces": Flood(TCP, "PIECE = b'x' * 200"),
    "UDP": Flood(UDP, "FAMILY = socket.AF_INET; PIECE = b'x' * 8000"),
    "UDP in small pieces": Flood(UDP, "FAMILY = socket.AF_INET; PIECE = b'x'"),
    "UDP by IPv6": Flood(UDP, "FAMILY = socket.AF_INET6; PIECE = b'x' * 8000"),
    "UDP not yet sent": Flood(CORKED, "PIECE = b'x' * 4000"),
    "UDP without an address": Flood(HIDDEN, "PIECE = b'x' * 8000"),
    "Unix streams": Flood(UNIX, "KIND = socket.SOCK_STREAM; PIECE = b'x' * 65536"),
    "Unix datagrams": Flood(UNIX, "KIND = socket.SOCK_DGRAM; PIECE = b'x' * 8000"),
    "Unix packets": Flood(UNIX, "KIND = socket.SOCK_SEQPACKET; PIECE = b'x' * 8000"),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_what_sockets_hold_counts_as_memory(run: Run, python_shell: str, kind: str) -> None:
    flood = FLOODS[kind]
    program = SETUP + flood.values + flood.program + WAIT
    files = {"main.py": program.encode()}
    phase = run("exec python3 main.py", files=files, shell=python_shell, limits=PATIENT).run
    assert phase.outcome is Outcome.MEMORY_LIMIT, (phase.stdout, phase.stderr)


IDLE = """
for _ in range(50):
    server = name(socket.SOCK_STREAM); server.listen()
    kept += [socket.create_connection(server.getsockname()), server.accept()[0]]
    kept += [name(socket.SOCK_DGRAM), *socket.socketpair()]
print(len(kept))
time.sleep(1)
"""


def test_sockets_that_hold_nothing_are_not_counted(run: Run, python_shell: str) -> None:
    limits = replace(PATIENT, open_files=512)
    without = run("exec python3 main.py", files={"main.py": SETUP.encode()}, shell=python_shell, limits=limits).run
    program = (SETUP + IDLE).encode()
    phase = run("exec python3 main.py", files={"main.py": program}, shell=python_shell, limits=limits).run
    assert (phase.stdout, phase.stderr) == ("350\n", "")
    assert isinstance(phase.memory, int)
    assert isinstance(without.memory, int)
    assert phase.memory < without.memory + 4 * MIB


MANY = """
import socket, time
kept = []
for _ in range(1100):
    kept.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)); kept[-1].bind(("127.0.0.1", 0))
time.sleep(30)
"""


def test_too_many_to_ask_for_count_with_all_that_they_may_hold(run: Run, python_shell: str) -> None:
    limits = replace(PATIENT, open_files=2000, memory=256 * MIB)
    phase = run("exec python3 main.py", files={"main.py": MANY.encode()}, shell=python_shell, limits=limits).run
    assert phase.outcome is Outcome.MEMORY_LIMIT, (phase.stdout, phase.stderr)


FILTERS = """
import ctypes, errno, socket
code = ctypes.create_string_buffer((6).to_bytes(8, "little"))
program = (1).to_bytes(8, "little") + ctypes.addressof(code).to_bytes(8, "little")
for option, value in ((26, program), (50, bytes(4)), (51, program), (52, bytes(4)), (9, bytes(4))):
    try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).setsockopt(socket.SOL_SOCKET, option, value)
    except OSError as error: print(option, errno.errorcode[error.errno])
    else: print(option, "done")
"""


def test_sockets_take_no_programs(run: Run, python_shell: str) -> None:
    """The memory of such programs counts for no job.

    Their sum is bounded on a host, and beyond it others' filters fail.
    """
    phase = run("exec python3 main.py", files={"main.py": FILTERS.encode()}, shell=python_shell).run
    assert phase.stdout == "26 EPERM\n50 EPERM\n51 EPERM\n52 EPERM\n9 done\n"
