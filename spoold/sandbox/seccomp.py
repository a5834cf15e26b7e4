"""A filter of system calls for the job, on top of the engine's own, which binds the supervisor too.

The filter refuses what only the supervisor of a recycled container may do: namespaces and mounts. It also refuses what
a container's profile should refuse, but what not every engine's profile does: io_uring, whose requests no filter sees,
and the calls of other architectures, whose numbers mean something else.

It allows the sockets of Unix, TCP and UDP. A network namespace does not hold AF_VSOCK, and AF_ALG reaches much of the
kernel. A kernel that lacks what a program asks for starts modprobe as the host's root, outside of every limit. So no
job may ask for SCTP or TIPC, for other types of IP sockets, for bridges or VLANs. Netlink is refused too, so
getifaddrs(3) fails: a filter does not see what is sent, and by RTM_GETTFILTER anybody may ask for a traffic classifier
by any name. Nor is anybody charged for what waits in a netlink socket, and about a thousand of these would take all of
the host's memory. On cgroup v1, nobody is charged for what waits in UDP and TCP sockets either. So these keep their
size, and a program that changes it is told that this was done. Nobody is charged for what a network device keeps of
multicast groups, and all containers share one number of IPv6 flow labels. So no socket joins a group or asks for a
label. No control group counts huge pages as memory, so there are none.

Requests by ioctl(2) are allowed for terminals, for files that are read and written like terminals, and for sockets.
File systems answer other requests, by which a job would learn where a file lies on the host's disk, how the disk is
named and what of it is free. Those requests are as unknown here as to a file system in memory.

sync, fsync and their like do nothing and report success. A job has nothing on a disk, and in a loop these calls would
stall the host's disks. A call that would change the limit on core dumps does nothing and reports success too. With the
limit as it is, the kernel starts none of the host's handlers when a program crashes. A job's own filters would take
from the room that the kernel has for the filters of all processes. Merged pages tell one job what another has in
memory. A program that asks for either is answered as by a kernel that has neither.
"""

from __future__ import annotations

import struct

PR_SET_SECCOMP = 22
LOAD, JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # classic BPF
AND = 0x54
NUMBER, ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
FIRST_ARGUMENT, SECOND_ARGUMENT, THIRD_ARGUMENT, FOURTH_ARGUMENT = 16, 24, 32, 40  # offsets of their low halves
HIGH = 4  # bytes from a low half to its high one
ALLOW, ERROR = 0x7FFF0000, 0x00050000
EPERM, ENOMEM, EINVAL, ENOTTY, ENOSYS = 1, 12, 22, 25, 38
ENOPROTOOPT, EPROTONOSUPPORT, EAFNOSUPPORT = 92, 93, 97
X32 = 0x40000000  # marks the numbers of x86's third set of calls
NAMESPACES = 0x7E020000  # all flags of clone that make a namespace
# The same on all machines: io_uring's three; open_tree, move_mount, fsopen, fsconfig, fsmount, fspick; mount_setattr.
REFUSED = (425, 426, 427, 428, 429, 430, 431, 432, 433, 442)
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
SOL_SOCKET, BUFFERS = 1, (7, 8)  # SO_SNDBUF, SO_RCVBUF
ATTACH = (26, 50, 51, 52)  # SO_ATTACH_FILTER, _BPF, _REUSEPORT_CBPF, _REUSEPORT_EBPF
# IP's options of bpfilter. For these, a kernel that has it (before Linux 6.8) starts modprobe and a program of its own.
TABLES = (64, 65)
# Levels, each with a range of options, from the first to the last, and single options. The range of IP is
# IP_ADD_MEMBERSHIP to MCAST_MSFILTER. The range of IPv6 is MCAST_JOIN_GROUP to MCAST_MSFILTER. Its single options are
# IPV6_JOIN_GROUP, IPV6_LEAVE_GROUP, IPV6_JOIN_ANYCAST and IPV6_FLOWLABEL_MGR.
GROUPS = ((0, (35, 48), TABLES), (41, (42, 48), (20, 21, 27, 32)))
RLIMIT_CORE = 4
PR_SET_MEMORY_MERGE, MADV_MERGEABLE = 67, 12
MAP_HUGETLB, MFD_HUGETLB, SHM_HUGETLB = 0x40000, 0x4, 0x800
# Types of IP sockets, each with its protocols: the default, and TCP for SOCK_STREAM or UDP for SOCK_DGRAM.
TYPES = ((1, (0, 6)), (2, (0, 17)))
TYPE = 0xF  # the bits of a socket's type; the others are flags
GROUP, TERMINALS, SOCKETS = 0xFF00, 0x5400, 0x8900  # of requests by ioctl
# Requests to a socket that load modules: for bridges (SIOCGIFBR, SIOCSIFBR, SIOCBRADDBR to SIOCBRDELIF), for Frame
# Relay (SIOCADDDLCI, SIOCDELDLCI), and for VLANs (SIOCGIFVLAN, SIOCSIFVLAN).
LOADING = (0x8940, 0x8941, 0x89A0, 0x89A1, 0x89A2, 0x89A3, 0x8980, 0x8981, 0x8982, 0x8983)


class Machine:
    """A machine's own numbers: its architecture as the filter sees it, and its calls."""

    architecture: int
    clone: int
    sockets: tuple[int, int, int, int]  # socket, socketpair, setsockopt, getsockopt
    ioctl: int
    limits: tuple[int, int]  # setrlimit, prlimit64
    memory: tuple[int, int, int]  # mmap, memfd_create, shmget
    idle: tuple[int, ...]  # sync, syncfs, fsync, fdatasync, sync_file_range
    own: tuple[int, int, int]  # prctl, madvise, seccomp
    refused: tuple[int, ...]  # mount, umount2, pivot_root, unshare, setns


class Amd64(Machine):
    """As the kernel's x86_64."""

    architecture, clone, ioctl = 0xC000003E, 56, 16
    sockets, limits, memory = (41, 53, 54, 55), (160, 302), (9, 319, 29)
    idle, refused = (162, 306, 74, 75, 277), (165, 166, 155, 272, 308)
    own = (157, 28, 317)


class Arm64(Machine):
    """As the kernel's aarch64."""

    architecture, clone, ioctl = 0xC00000B7, 220, 29
    sockets, limits, memory = (198, 199, 208, 209), (164, 261), (222, 279, 194)
    idle, refused = (81, 267, 82, 83, 84), (40, 39, 41, 97, 268)
    own = (167, 233, 277)


MACHINES: dict[str, type[Machine]] = {"x86_64": Amd64, "aarch64": Arm64}


def program(machine: str) -> list[tuple[int, int, int, int]]:
    """Return the filter for a machine, as uname(2) names it: the fields of each ``struct sock_filter``.

    Raises KeyError for a machine whose numbers are not known here.
    """
    return [struct.unpack("<HBBI", step) for step in _steps(MACHINES[machine])]


def _steps(machine: type[Machine]) -> list[bytes]:
    refuse, no_call = _op(RETURN, ERROR | EPERM), _op(RETURN, ERROR | ENOSYS)
    steps = [_op(LOAD, ARCHITECTURE), _op(JUMP_EQUAL, machine.architecture, yes=1), no_call]
    steps += [_op(LOAD, NUMBER), _op(JUMP_GREATER_EQUAL, X32, no=1), no_call]
    for number in REFUSED + machine.refused:
        steps += [_op(JUMP_EQUAL, number, no=1), refuse]
    for number in machine.idle:
        steps += [_op(JUMP_EQUAL, number, no=1), _op(RETURN, ERROR)]
    process, advice, filtering = machine.own
    unknown = _op(RETURN, ERROR | EINVAL)
    steps += [_op(JUMP_EQUAL, filtering, no=1), unknown]
    steps += [_op(JUMP_EQUAL, process, no=5), _op(LOAD, FIRST_ARGUMENT), _op(JUMP_EQUAL, PR_SET_SECCOMP, yes=2)]
    steps += [_op(JUMP_EQUAL, PR_SET_MEMORY_MERGE, yes=1), _op(RETURN, ALLOW), unknown]
    steps += [_op(JUMP_EQUAL, advice, no=4), _op(LOAD, THIRD_ARGUMENT), _op(JUMP_EQUAL, MADV_MERGEABLE, no=1)]
    steps += [unknown, _op(RETURN, ALLOW)]
    steps += [_op(JUMP_EQUAL, machine.clone, no=4), _op(LOAD, FIRST_ARGUMENT)]
    steps += [_op(JUMP_ANY_BIT, NAMESPACES, no=1), refuse, _op(RETURN, ALLOW)]
    huge = ((FOURTH_ARGUMENT, MAP_HUGETLB), (SECOND_ARGUMENT, MFD_HUGETLB), (THIRD_ARGUMENT, SHM_HUGETLB))
    for number, (argument, flag) in zip(machine.memory, huge, strict=True):
        steps += [_op(JUMP_EQUAL, number, no=4), _op(LOAD, argument), _op(JUMP_ANY_BIT, flag, no=1)]
        steps += [_op(RETURN, ERROR | ENOMEM), _op(RETURN, ALLOW)]
    set_limit, limit = machine.limits
    steps += [_op(JUMP_EQUAL, set_limit, no=4), _op(LOAD, FIRST_ARGUMENT), _op(JUMP_EQUAL, RLIMIT_CORE, no=1)]
    steps += [_op(RETURN, ERROR), _op(RETURN, ALLOW)]
    # Without a new limit, the call asks for the old one, and is allowed.
    steps += [_op(JUMP_EQUAL, limit, no=8), _op(LOAD, SECOND_ARGUMENT), _op(JUMP_EQUAL, RLIMIT_CORE, no=5)]
    steps += [_op(LOAD, THIRD_ARGUMENT), _op(JUMP_EQUAL, 0, no=2), _op(LOAD, THIRD_ARGUMENT + HIGH)]
    steps += [_op(JUMP_EQUAL, 0, yes=1), _op(RETURN, ERROR), _op(RETURN, ALLOW)]
    socket, pair, option, asked = machine.sockets
    steps += _where(option, _options())
    tables = [_op(LOAD, THIRD_ARGUMENT), *_among(TABLES, _op(RETURN, ERROR | ENOPROTOOPT)), _op(RETURN, ALLOW)]
    steps += _where(asked, [_op(LOAD, SECOND_ARGUMENT), *_where(0, tables), _op(RETURN, ALLOW)])
    steps += _where(machine.ioctl, _requests())
    steps += [_op(JUMP_EQUAL, socket, yes=2), _op(JUMP_EQUAL, pair, yes=1), _op(RETURN, ALLOW)]
    return [*steps, *_kinds()]


def _options() -> list[bytes]:
    """Return the steps for a call that sets an option of a socket."""
    refuse, unknown = _op(RETURN, ERROR | EPERM), _op(RETURN, ERROR | ENOPROTOOPT)
    own = [_op(LOAD, THIRD_ARGUMENT), *_among(BUFFERS, _op(RETURN, ERROR)), *_among(ATTACH, refuse)]
    steps = [_op(LOAD, SECOND_ARGUMENT), *_where(SOL_SOCKET, [*own, _op(RETURN, ALLOW)])]
    for level, (first, last), more in GROUPS:
        listed = [_op(LOAD, THIRD_ARGUMENT), *_among(more, unknown), _op(JUMP_GREATER_EQUAL, first, no=2)]
        steps += _where(level, [*listed, _op(JUMP_GREATER_EQUAL, last + 1, yes=1), unknown, _op(RETURN, ALLOW)])
    return [*steps, _op(RETURN, ALLOW)]


def _requests() -> list[bytes]:
    """Return the steps for a call of ioctl."""
    unknown = _op(RETURN, ERROR | ENOTTY)
    steps = [_op(LOAD, SECOND_ARGUMENT), _op(AND, GROUP), _op(JUMP_EQUAL, TERMINALS, no=1), _op(RETURN, ALLOW)]
    steps += [_op(JUMP_EQUAL, SOCKETS, yes=1), unknown]
    return [*steps, _op(LOAD, SECOND_ARGUMENT), *_among(LOADING, unknown), _op(RETURN, ALLOW)]


def _kinds() -> list[bytes]:
    """Return the steps for a call that makes a socket."""
    steps = [_op(LOAD, FIRST_ARGUMENT), _op(JUMP_EQUAL, AF_UNIX, no=1), _op(RETURN, ALLOW)]
    steps += [_op(JUMP_EQUAL, AF_INET, yes=2), _op(JUMP_EQUAL, AF_INET6, yes=1), _op(RETURN, ERROR | EAFNOSUPPORT)]
    steps += [_op(LOAD, SECOND_ARGUMENT), _op(AND, TYPE)]
    other = _op(RETURN, ERROR | EPROTONOSUPPORT)
    for kind, protocols in TYPES:
        steps += _where(kind, [_op(LOAD, THIRD_ARGUMENT), *_among(protocols, _op(RETURN, ALLOW)), other])
    return [*steps, other]


def _where(value: int, steps: list[bytes]) -> list[bytes]:
    """Return ``steps``, to be taken where the loaded value is this one. Each way through them must return."""
    return [_op(JUMP_EQUAL, value, no=len(steps)), *steps]


def _among(values: tuple[int, ...], answer: bytes) -> list[bytes]:
    return [step for value in values for step in (_op(JUMP_EQUAL, value, no=1), answer)]


def _op(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return code.to_bytes(2, "little") + bytes((yes, no)) + value.to_bytes(4, "little")
