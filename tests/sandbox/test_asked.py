"""A job's requests to sockets and files. Those that the host would answer or pay for are refused."""

from __future__ import annotations

import pytest

from spoold.sandbox import seccomp
from tests.sandbox.conftest import Said

# A kernel that lacks a requested protocol starts modprobe. Each line is a try, with the name of an error or "done".
SOCKETS = """
import errno, fcntl, socket
def tell(name, do):
    try: do()
    except OSError as error: print(name, errno.errorcode[error.errno])
    else: print(name, "done")
for family in (socket.AF_INET, socket.AF_INET6):
    for kind in range(12):
        for protocol in (0, 1, 6, 17, 58, 132, 136, 262):
            for flags in (0, socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK):
                name = "%d.%d" % (kind, protocol)
                tell(name, lambda: socket.socket(family, kind | flags, protocol).close())
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in (0x8940, 0x8941, *range(0x89a0, 0x89a4), *range(0x8980, 0x8984)):
    tell("ioctl", lambda: fcntl.ioctl(udp, number, bytes(64)))
for number in (64, 65):
    tell("table", lambda: udp.setsockopt(0, number, bytes(64)))
    tell("table", lambda: udp.getsockopt(0, number, 64))
print("asked", udp.getsockopt(socket.SOL_SOCKET, 3), udp.getsockopt(0, 2) > 0)
"""


def test_no_socket_has_the_host_load_a_module(said: Said) -> None:
    lines = said(SOCKETS)
    told = {(words[0], words[1]) for line in lines if (words := line.split())}
    assert {name for name, answer in told if answer == "done"} == {"1.0", "1.6", "2.0", "2.17"}
    assert {answer for name, answer in told if "." in name} == {"done", "EPROTONOSUPPORT"}
    assert {answer for name, answer in told if name == "ioctl"} == {"ENOTTY"}
    assert {answer for name, answer in told if name == "table"} == {"ENOPROTOOPT"}
    assert "asked 2 True" in lines


# Requests to file systems: FS_IOC_GETFSMAP, FIEMAP, FS_IOC_GETFSUUID, FS_IOC_GETFSSYSFSPATH, FS_IOC_GETFSLABEL, FIBMAP,
# FIGETBSZ, FS_IOC_GETFLAGS, EXT4_IOC_GETFSUUID, XFS_IOC_FSCOUNTS, BTRFS_IOC_FS_INFO, BTRFS_IOC_DEV_INFO, one of F2FS.
# And RNDGETENTCNT, FIONREAD, FIOCLEX.
FILES = """
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def ask(file, number):
    ctypes.set_errno(0)
    done = libc.ioctl(file, ctypes.c_ulong(number), ctypes.create_string_buffer(b"lo", 8192))
    return errno.errorcode[ctypes.get_errno()] if done < 0 else "done"
asked = [0xc0c0583b, 0xc020660b, 0x80111500, 0x80811501, 0x81009431, 1, 2, 0x80086601, 0x8008662c]
asked += [0x80205871, 0x8400941f, 0xd000941e, 0xf501]
for path in ("/etc/hostname", os.path.realpath(os.__file__), os.path.dirname(os.__file__), "/", "/job"):
    file = os.open(path, os.O_RDONLY)
    print("file", *{ask(file, number) for number in asked})
print("random", ask(os.open("/dev/random", os.O_RDONLY), 0x80045200))
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("others", *(ask(made.fileno(), number) for number in (0x541b, 0x5451, 0x8913)), ask(os.pipe()[0], 0x541b))
print(open("/etc/hostname").read().strip(), socket.gethostname())
print([os.stat(path).st_dev == os.stat("/sys").st_dev for path in ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")])
"""


def test_files_tell_nothing_of_the_disk_of_the_host(said: Said) -> None:
    *files, random, others, names, covers = said(FILES)
    assert files == ["file ENOTTY"] * 5
    assert (random, others) == ("random ENOTTY", "others done done done done")
    assert (names, covers) == ("sandbox sandbox", "[True, True, True]")


OPTIONS = """
import errno, itertools, socket, struct
said = {}
for family, kind, level in itertools.product((socket.AF_INET, socket.AF_INET6), (1, 2), (0, 41)):
    if family == socket.AF_INET and level == 41:
        continue
    made = socket.socket(family, kind)
    for option in range(35, 49) if level == 0 else (20, 21, 27, 32, *range(42, 49)):
        try: made.setsockopt(level, option, bytes(136))
        except OSError as error: said.setdefault((level, errno.errorcode[error.errno]), set()).add(option)
        else: said.setdefault((level, "done"), set()).add(option)
    for option in (1, 2, 49) if level == 0 else (16, 26, 33):
        made.setsockopt(level, option, 1)
print({key: len(options) for key, options in said.items()})
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
made.setsockopt(socket.SOL_SOCKET, 42, 1)
made.setsockopt(socket.SOL_SOCKET, 20, struct.pack("ll", 1, 0))
"""


def test_sockets_join_no_groups_and_ask_for_no_flow_labels(said: Said) -> None:
    """A device's memory for groups counts for no job, and one bound on flow labels holds for the whole host."""
    assert said(OPTIONS) == ["{(0, 'ENOPROTOOPT'): 14, (41, 'ENOPROTOOPT'): 11}"]


@pytest.mark.parametrize("name", seccomp.MACHINES)
def test_a_filter_is_one_that_the_kernel_takes(name: str) -> None:
    """Each path through the filter ends."""
    steps = seccomp.program(name)
    for at, (code, yes, no, _) in enumerate(steps):
        if code in (seccomp.JUMP_EQUAL, seccomp.JUMP_GREATER_EQUAL, seccomp.JUMP_ANY_BIT):
            assert max(at + 1 + yes, at + 1 + no) < len(steps)
    assert steps[-1][0] == seccomp.RETURN
