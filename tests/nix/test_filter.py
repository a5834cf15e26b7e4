"""The filter refuses some system calls to builds, and leaves them all others."""

from __future__ import annotations

import os
import time

import pytest

from spoold.host import seccomp
from spoold.nix.build import NixBuilder
from tests import cores, huge
from tests.nix import room

pytestmark = pytest.mark.nix

# It prints a line for each try, with the error's number or 0.
TRIES = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)

def call(name, number, *arguments):
    ctypes.set_errno(0)
    done = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(each) for each in arguments))
    print("tried", name, ctypes.get_errno() if done < 0 else 0)

for family in range(46):
    try:
        socket.socket(family, socket.SOCK_STREAM if family != 16 else socket.SOCK_RAW).close()
        print("tried", "family%d" % family, 0)
    except OSError as error:
        print("tried", "family%d" % family, error.errno)
for family in (socket.AF_INET, socket.AF_INET6):
    for kind in range(12):
        for protocol in (0, 1, 6, 17, 58, 132, 136, 262):
            for flags in (0, socket.SOCK_CLOEXEC):
                try:
                    socket.socket(family, kind | flags, protocol).close()
                    print("tried", "ip%d.%d" % (kind, protocol), 0)
                except OSError as error:
                    print("tried", "ip%d.%d" % (kind, protocol), error.errno)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    for number in (0x8940, 0x8941, *range(0x89a0, 0x89a4), *range(0x8980, 0x8984)):
        ctypes.set_errno(0)
        libc.ioctl(udp.fileno(), ctypes.c_ulong(number), ctypes.create_string_buffer(64))
        print("tried", "ioctl%x" % number, ctypes.get_errno())
for family, level, numbers in (
    (socket.AF_INET, 0, (*range(35, 49), 64, 65)),
    (socket.AF_INET6, 41, (20, 21, 27, 32, *range(42, 49))),
    (socket.AF_INET6, 0, (*range(35, 49), 64, 65)),
):
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        for number in numbers:
            try:
                udp.setsockopt(level, number, bytes(136))
                print("tried", "option%d.%d" % (level, number), 0)
            except OSError as error:
                print("tried", "option%d.%d" % (level, number), error.errno)
        for number in (64, 65):
            try:
                udp.getsockopt(0, number, 136)
                print("tried", "option.get%d" % number, 0)
            except OSError as error:
                print("tried", "option.get%d" % number, error.errno)
        udp.setsockopt(41, 26, 1) if family == socket.AF_INET6 else udp.setsockopt(0, 2, 9)
file = os.open(os.environ["codePath"], os.O_RDONLY)
for number in (0xc0c0583b, 0xc020660b, 0x80111500, 0x80811501, 0x81009431):
    ctypes.set_errno(0)
    libc.ioctl(file, ctypes.c_ulong(number), ctypes.create_string_buffer(4096))
    print("tried", "ioctl%x" % number, ctypes.get_errno())
try:
    socket.socketpair(socket.AF_UNIX)
    print("tried", "pair", 0)
except OSError as error:
    print("tried", "pair", error.errno)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    before = udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * before)
    print("tried", "buffer", udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) - before)
x86 = os.uname().machine == "x86_64"
call("io_uring", 425, 8, 0)
call("memfd_secret", 447, 0)
call("io_setup", 206 if x86 else 0, 8, 0)
call("keyctl", 250 if x86 else 219, 0, -3, 1)
call("bpf", 321 if x86 else 280, 0, 0, 0)
call("perf", 298 if x86 else 241, 0, 0, -1, -1, 0)
call("userfaultfd", 323 if x86 else 282, 0)
call("sync", 162 if x86 else 81)
call("getpid", 39 if x86 else 172)
if x86:
    call("x32", 0x40000000 + 39)
"""
EPERM, ENOTTY, ENOSYS, ENOPROTOOPT, EPROTONOSUPPORT, EAFNOSUPPORT = 1, 25, 38, 92, 93, 97
WANTED = {
    "io_uring": ENOSYS,
    "memfd_secret": ENOSYS,
    "io_setup": ENOSYS,
    "keyctl": EPERM,
    "bpf": EPERM,
    "perf": EPERM,
    "userfaultfd": EPERM,
    "sync": 0,
    "getpid": 0,
    "pair": 0,
    "buffer": 0,
}


def said_by(builder: NixBuilder, code: str) -> str:
    """Return the stderr of a build that runs ``code`` in Python and fails."""
    inputs = f"{{ p = pkgs.python3; passAsFile = [ ''code'' ]; code = ''{code}''; }}"
    attributes = f'X = pkgs.runCommand "says-{time.time_ns()}" {inputs} "$p/bin/python3 $codePath; exit 1";'
    return room.build(builder, room.SHELL % attributes).phase.stderr


def test_what_a_build_may_ask_of_the_kernel(nix_builder: NixBuilder) -> None:
    said = said_by(nix_builder, TRIES)
    tried = {words[1]: int(words[2]) for line in said.splitlines() if (words := line.split())[:1] == ["tried"]}
    assert tried, said
    families = {name: number for name, number in tried.items() if name.startswith("family")}
    assert len(families) == 46
    opened = {name for name, number in families.items() if number == 0}
    assert opened == {f"family{number}" for number in (seccomp.AF_UNIX, *seccomp.IP)}
    assert {number for name, number in families.items() if name not in opened} == {EAFNOSUPPORT}
    kinds = {name: number for name, number in tried.items() if name.startswith("ip")}
    assert {name for name, number in kinds.items() if number == 0} == {"ip1.0", "ip1.6", "ip2.0", "ip2.17"}
    assert set(kinds.values()) == {0, EPROTONOSUPPORT}
    assert {number for name, number in tried.items() if name.startswith("ioctl")} == {ENOTTY}
    assert {number for name, number in tried.items() if name.startswith("option")} == {ENOPROTOOPT}
    for name, number in WANTED.items():
        assert tried[name] == number, (name, tried)
    if os.uname().machine == "x86_64":
        assert tried["x32"] == ENOSYS


def test_a_build_gets_no_huge_pages(nix_builder: NixBuilder) -> None:
    with huge.pages():
        said = said_by(nix_builder, huge.TRIES)
    assert huge.REFUSED in said, said


def test_a_crash_of_a_build_starts_no_handler_of_the_host(nix_builder: NixBuilder) -> None:
    crashes = cores.CRASHES.replace("$", "''$")
    attributes = f"X = pkgs.runCommand \"crashes-{time.time_ns()}\" {{ }} ''{crashes}\nfalse'';"
    with cores.handled() as count:
        said = room.build(nix_builder, room.SHELL % attributes).phase.stderr
        assert "dumped" not in said
        assert said.count("Segmentation fault") == 2, said
        assert "set 0\n" in said_by(nix_builder, cores.RAW)
        assert count() == 0


@pytest.mark.parametrize("name", seccomp.MACHINES)
def test_a_filter_is_one_that_the_kernel_takes(name: str) -> None:
    """Each path through the filter ends, within the 4096 steps and the distances that seccomp(2) allows."""
    program = seccomp.program(seccomp.MACHINES[name])
    steps = [program[at : at + 8] for at in range(0, len(program), 8)]
    assert len(steps) < 4096
    for at, step in enumerate(steps):
        code, yes, no = int.from_bytes(step[:2], "little"), step[2], step[3]
        if code in (seccomp.JUMP_EQUAL, seccomp.JUMP_GREATER_EQUAL, seccomp.JUMP_ANY_BIT):
            assert max(at + 1 + yes, at + 1 + no) < len(steps)
    assert int.from_bytes(steps[-1][:2], "little") == seccomp.RETURN
