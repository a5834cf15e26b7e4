"""A filter of system calls for builds and evaluations, as a program of classic BPF that bubblewrap installs.

The filter applies to Nix too. Nix makes namespaces and mounts for each build, so these are allowed here, and Nix's own
filter and walls keep a builder from more. This filter refuses what those leave open:

* kinds of sockets that no network namespace holds (AF_VSOCK), that reach deep into the kernel (AF_ALG), or whose
  contents are counted for nobody (AF_NETLINK);
* calls that make the kernel start modprobe as the host's root: the only IP sockets are TCP and UDP, and there are no
  bridges and VLANs;
* memory that nobody counts on cgroup v1: the buffers of sockets keep their size, and programs are told that it was
  changed. Multicast groups are unknown, and so are flow labels, since there are few for all of the host;
* disk space that is taken at once (fallocate, and what some file systems offer instead): a builder has to write it byte
  by byte, so that it can be measured while it grows. A C library falls back to writing;
* what file systems tell of the host's disk: where on it a file lies, what is free, and how it is named;
* what one build could take from all others: contexts of io_setup, and the disk's time by sync and syncfs. These two do
  nothing and report success;
* huge pages, which no control group of memory counts;
* calls that set another limit on core dumps than the one that a build begins with, see :mod:`spoold.host.launch`: they
  do nothing either;
* io_uring, whose requests no filter sees;
* calls that builds do not need and that attacks on kernels have used: keys, bpf, perf, userfaultfd, modules, kexec,
  handles of files, clocks;
* the calls of other architectures, whose numbers mean something else.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

LOAD, JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
NUMBER, ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
FIRST, SECOND, THIRD, FOURTH = 16, 24, 32, 40  # likewise, of the low halves of arguments
HIGH = 4  # bytes from the low half of an argument to its high half
ALLOW, ERROR = 0x7FFF0000, 0x00050000
X32 = 0x40000000
AF_UNIX, IP = 1, (2, 10)  # AF_INET, AF_INET6
# Types of IP sockets, each with its protocols: 0 for the usual one, and TCP for SOCK_STREAM or UDP for SOCK_DGRAM.
TYPES = ((1, (0, 6)), (2, (0, 17)))
TYPE = 0xF  # the bits of a socket's type; the others are flags
# Requests to a socket that load modules: of bridges (SIOCGIFBR, SIOCSIFBR, SIOCBRADDBR to SIOCBRDELIF), of Frame Relay
# (SIOCADDDLCI, SIOCDELDLCI), and of VLANs (SIOCGIFVLAN, SIOCSIFVLAN).
LOADING = (0x8940, 0x8941, 0x89A0, 0x89A1, 0x89A2, 0x89A3, 0x8980, 0x8981, 0x8982, 0x8983)
SOL_SOCKET, BUFFERS = 1, (7, 8, 32, 33)  # SO_SNDBUF, SO_RCVBUF, SO_SNDBUFFORCE, SO_RCVBUFFORCE
# IP's options of bpfilter. A kernel that has it (before Linux 6.8) starts modprobe for them, and a program of its own.
TABLES = (64, 65)
# Levels, their options and the answer. Of IP: IP_ADD_MEMBERSHIP to MCAST_MSFILTER, and those of bpfilter. Of IPv6:
# MCAST_JOIN_GROUP to MCAST_MSFILTER, IPV6_JOIN_GROUP, IPV6_LEAVE_GROUP, IPV6_JOIN_ANYCAST and IPV6_FLOWLABEL_MGR.
GROUPS = ((0, (*range(35, 49), *TABLES), errno.ENOPROTOOPT), (41, (20, 21, 27, 32, *range(42, 49)), errno.ENOPROTOOPT))
# FS_IOC_RESVSP, RESVSP64 and ZERO_RANGE; XFS_IOC_ALLOCSP and ALLOCSP64; FS_IOC_FSSETXATTR, which sets an extent's size
RESERVING = (0x40305828, 0x4030582A, 0x40305839, 0x4030580A, 0x40305824, 0x401C5820)
# FS_IOC_GETFSMAP, FIEMAP, FS_IOC_GETFSUUID, FS_IOC_GETFSSYSFSPATH, FS_IOC_GETFSLABEL
TELLING = (0xC0C0583B, 0xC020660B, 0x80111500, 0x80811501, 0x81009431)
URING = (425, 426, 427)
MEMFD_SECRET = 447
RLIMIT_CORE = 4
MAP_HUGETLB, MFD_HUGETLB, SHM_HUGETLB = 0x40000, 0x4, 0x800


class Machine(NamedTuple):
    """The numbers of a machine's system calls.

    ``refused``: add_key, request_key, keyctl, bpf, perf_event_open, userfaultfd, kexec_load, kexec_file_load,
    init_module, finit_module, delete_module, open_by_handle_at, name_to_handle_at, acct, swapon, swapoff, reboot,
    syslog, quotactl, fanotify_init, vhangup, settimeofday, clock_settime, adjtimex, clock_adjtime; on x86 also iopl,
    ioperm and modify_ldt. ``idle``: sync, syncfs.
    """

    architecture: int
    socket: int
    socketpair: int
    setsockopt: int
    getsockopt: int
    ioctl: int
    fallocate: int
    io_setup: int
    setrlimit: int
    prlimit: int
    mmap: int
    memfd_create: int
    shmget: int
    idle: tuple[int, ...]
    refused: tuple[int, ...]


MACHINES = {
    "x86_64": Machine(
        architecture=0xC000003E,
        socket=41,
        socketpair=53,
        setsockopt=54,
        getsockopt=55,
        ioctl=16,
        fallocate=285,
        io_setup=206,
        setrlimit=160,
        prlimit=302,
        mmap=9,
        memfd_create=319,
        shmget=29,
        idle=(162, 306),
        refused=(
            *(248, 249, 250, 321, 298, 323, 246, 320, 175, 313, 176, 304, 303, 163, 167, 168, 169, 103, 179, 300),
            *(153, 164, 227, 159, 305, 172, 173, 154),
        ),
    ),
    "aarch64": Machine(
        architecture=0xC00000B7,
        socket=198,
        socketpair=199,
        setsockopt=208,
        getsockopt=209,
        ioctl=29,
        fallocate=47,
        io_setup=0,
        setrlimit=164,
        prlimit=261,
        mmap=222,
        memfd_create=279,
        shmget=194,
        idle=(81, 267),
        refused=(
            *(217, 218, 219, 280, 241, 282, 104, 294, 105, 273, 106, 265, 264, 89, 224, 225, 142, 116, 60, 262),
            *(58, 170, 112, 171, 266),
        ),
    ),
}


@contextlib.contextmanager
def filtering() -> Iterator[int]:
    """Yield a descriptor from which bubblewrap's --seccomp reads the filter for this machine."""
    fd = os.memfd_create("seccomp")
    try:
        os.write(fd, program(MACHINES[os.uname().machine]))
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def program(machine: Machine) -> bytes:
    """Return the filter: an array of struct sock_filter, see seccomp(2)."""
    steps = [_op(LOAD, ARCHITECTURE), _op(JUMP_EQUAL, machine.architecture, yes=1), _error(errno.ENOSYS)]
    steps += [_op(LOAD, NUMBER), _op(JUMP_GREATER_EQUAL, X32, no=1), _error(errno.ENOSYS)]
    for numbers, answer in (
        (machine.refused, errno.EPERM),
        ((*URING, MEMFD_SECRET, machine.io_setup), errno.ENOSYS),
        ((machine.fallocate,), errno.EOPNOTSUPP),
        (machine.idle, 0),
    ):
        for number in numbers:
            steps += [_op(JUMP_EQUAL, number, no=1), _error(answer)]
    for number in (machine.socket, machine.socketpair):
        steps += _where(number, _kinds())
    options = [_op(LOAD, SECOND)]
    for level, refused, answer in ((SOL_SOCKET, BUFFERS, 0), *GROUPS):
        options += _where(level, [_op(LOAD, THIRD), *_among(refused, _error(answer)), _op(RETURN, ALLOW)])
    steps += _where(machine.setsockopt, [*options, _op(RETURN, ALLOW)])
    tables = [_op(LOAD, THIRD), *_among(TABLES, _error(errno.ENOPROTOOPT)), _op(RETURN, ALLOW)]
    steps += _where(machine.getsockopt, [_op(LOAD, SECOND), *_where(0, tables), _op(RETURN, ALLOW)])
    requests = [_op(LOAD, SECOND), *_among(RESERVING, _error(errno.EOPNOTSUPP))]
    requests += [*_among(LOADING + TELLING, _error(errno.ENOTTY)), _op(RETURN, ALLOW)]
    steps += _where(machine.ioctl, requests)
    for number, argument, huge in (
        (machine.mmap, FOURTH, MAP_HUGETLB),
        (machine.memfd_create, SECOND, MFD_HUGETLB),
        (machine.shmget, THIRD, SHM_HUGETLB),
    ):
        asked = [_op(LOAD, argument), _op(JUMP_ANY_BIT, huge, no=1), _error(errno.ENOMEM), _op(RETURN, ALLOW)]
        steps += _where(number, asked)
    core = [_op(LOAD, FIRST), *_among((RLIMIT_CORE,), _error(0)), _op(RETURN, ALLOW)]
    steps += _where(machine.setrlimit, core)
    # A call of prlimit without a new limit only asks for the old one.
    core = [_op(LOAD, SECOND), _op(JUMP_EQUAL, RLIMIT_CORE, yes=1), _op(RETURN, ALLOW)]
    core += [_op(LOAD, THIRD), _op(JUMP_EQUAL, 0, no=2), _op(LOAD, THIRD + HIGH), _op(JUMP_EQUAL, 0, yes=1)]
    steps += _where(machine.prlimit, [*core, _error(0), _op(RETURN, ALLOW)])
    return b"".join([*steps, _op(RETURN, ALLOW)])


def _kinds() -> list[bytes]:
    """Return the steps for a call that makes a socket."""
    steps = [_op(LOAD, FIRST), _op(JUMP_EQUAL, AF_UNIX, no=1), _op(RETURN, ALLOW)]
    steps += [_op(JUMP_EQUAL, family, yes=len(IP) - place) for place, family in enumerate(IP)]
    steps += [_error(errno.EAFNOSUPPORT), _op(LOAD, SECOND), _op(AND, TYPE)]
    other = _error(errno.EPROTONOSUPPORT)
    for kind, protocols in TYPES:
        steps += _where(kind, [_op(LOAD, THIRD), *_among(protocols, _op(RETURN, ALLOW)), other])
    return [*steps, other]


def _where(number: int, steps: list[bytes]) -> list[bytes]:
    """Return ``steps`` for the case that the loaded value is ``number``; each way through them has to return.

    In the other case they are skipped, and the same value is still loaded.
    """
    return [_op(JUMP_EQUAL, number, no=len(steps)), *steps]


def _among(values: tuple[int, ...], answer: bytes) -> list[bytes]:
    return [step for value in values for step in (_op(JUMP_EQUAL, value, no=1), answer)]


def _error(number: int) -> bytes:
    return _op(RETURN, ERROR | number)


def _op(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return code.to_bytes(2, "little") + bytes((yes, no)) + value.to_bytes(4, "little")
