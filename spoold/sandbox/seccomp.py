"""A filter of system calls for the job, on top of the engine's own, which binds the supervisor too.

It refuses what only the supervisor of a recycled container may do: namespaces, mounts. And what a container's profile
should refuse, but not every engine applies it: io_uring, whose requests no filter sees, and the calls of other
architectures, whose numbers mean something else. Of sockets it leaves Unix ones, TCP and UDP. A network namespace does
not hold AF_VSOCK, and AF_ALG reaches much of the kernel. A kernel that has not what a program asks for starts modprobe
as the host's root, outside of every limit: so nobody asks for SCTP or TIPC, for other types of IP sockets, for bridges
or VLANs. Nor for netlink, so getifaddrs(3) fails: a filter does not see what is sent, and by RTM_GETTFILTER anybody
may ask for a traffic classifier by any name. And what waits in a netlink socket is counted for nobody: some thousand
of them would take all of the host's memory. Nor is, on cgroup v1, what waits in UDP and TCP sockets: so these keep the
size that they have, and are told that it was changed. Nor is what a network device keeps of the groups of multicast,
and of IPv6's flow labels there is one number for all containers: no socket joins a group, or asks for a label. No
control group counts huge pages with the memory: there are none.

Requests by ioctl(2) are for terminals, what is read and written like them, and sockets. File systems answer others of
where a file lies on the host's disk, how that is named and what of it is free: they are as unknown here as to a file
system in memory.

sync, fsync and their like do nothing and say that it is done: a job has nothing on a disk, and in a loop they would
stall the host's. So does what would change the limit on core dumps, with which the kernel starts no handler of the
host's when a program crashes. Filters of the job's own would take from the room that the kernel has for those of all
processes, and merged pages tell one job what another has in memory. Who asks for either is answered as by a kernel
that has neither.
"""

from __future__ import annotations

import struct

PR_SET_SECCOMP = 22
LOAD, JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # classic BPF
AND = 0x54
NUMBER, ARCHITECTURE = 0, 4  # offsets
FIRST_ARGUMENT, SECOND_ARGUMENT, THIRD_ARGUMENT, FOURTH_ARGUMENT = 16, 24, 32, 40  # of their low halves
HIGH = 4  # bytes from a low half to its high one
ALLOW, ERROR = 0x7FFF0000, 0x00050000
EPERM, ENOMEM, EINVAL, ENOTTY, ENOSYS = 1, 12, 22, 25, 38
ENOPROTOOPT, EPROTONOSUPPORT, EAFNOSUPPORT = 92, 93, 97
X32 = 0x40000000  # x86's third set of numbers
NAMESPACES = 0x7E020000  # all flags of clone that make one
# The same on all machines: io_uring's three; open_tree, move_mount, fsopen, fsconfig, fsmount, fspick; mount_setattr.
REFUSED = (425, 426, 427, 428, 429, 430, 431, 432, 433, 442)
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
SOL_SOCKET, BUFFERS = 1, (7, 8)  # SO_SNDBUF, SO_RCVBUF
ATTACH = (26, 50, 51, 52)  # SO_ATTACH_FILTER, _BPF, _REUSEPORT_CBPF, _REUSEPORT_EBPF
# IP's options of bpfilter, with which a kernel that has it (before Linux 6.8) starts modprobe and a program of its own.
TABLES = (64, 65)
# Levels, and their options from the first to the last, and more: of IP IP_ADD_MEMBERSHIP to MCAST_MSFILTER; of IPv6
# MCAST_JOIN_GROUP to MCAST_MSFILTER, IPV6_JOIN_GROUP, IPV6_LEAVE_GROUP, IPV6_JOIN_ANYCAST and IPV6_FLOWLABEL_MGR.
GROUPS = ((0, (35, 48), TABLES), (41, (42, 48), (20, 21, 27, 32)))
RLIMIT_CORE = 4
PR_SET_MEMORY_MERGE, MADV_MERGEABLE = 67, 12
MAP_HUGETLB, MFD_HUGETLB, SHM_HUGETLB = 0x40000, 0x4, 0x800
# A type of IP socket, and its protocols: whichever is usual, and TCP with SOCK_STREAM or UDP with SOCK_DGRAM.
TYPES = ((1, (0, 6)), (2, (0, 17)))
TYPE = 0xF  # the bits of a socket's type; the others are flags
GROUP, TERMINALS, SOCKETS = 0xFF00, 0x5400, 0x8900  # of requests by ioctl
# Requests to a socket that load modules: of bridges (SIOCGIFBR, SIOCSIFBR, SIOCBRADDBR to SIOCBRDELIF), of Frame Relay
# (SIOCADDDLCI, SIOCDELDLCI), and of VLANs (SIOCGIFVLAN, SIOCSIFVLAN).
LOADING = (0x8940, 0x8941, 0x89A0, 0x89A1, 0x89A2, 0x89A3, 0x8980, 0x8981, 0x8982, 0x8983)


class Machine:
    """A machine's own numbers: what the filter sees of it, and calls."""

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

    Raises KeyError for one whose numbers are not known here.
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
    # Without a new limit, it is asked for the old one.
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
    """Return the steps for a socket's option that is to be set."""
    refuse, unknown = _op(RETURN, ERROR | EPERM), _op(RETURN, ERROR | ENOPROTOOPT)
    own = [_op(LOAD, THIRD_ARGUMENT), *_among(BUFFERS, _op(RETURN, ERROR)), *_among(ATTACH, refuse)]
    steps = [_op(LOAD, SECOND_ARGUMENT), *_where(SOL_SOCKET, [*own, _op(RETURN, ALLOW)])]
    for level, (first, last), more in GROUPS:
        listed = [_op(LOAD, THIRD_ARGUMENT), *_among(more, unknown), _op(JUMP_GREATER_EQUAL, first, no=2)]
        steps += _where(level, [*listed, _op(JUMP_GREATER_EQUAL, last + 1, yes=1), unknown, _op(RETURN, ALLOW)])
    return [*steps, _op(RETURN, ALLOW)]


def _requests() -> list[bytes]:
    """Return the steps for an ioctl."""
    unknown = _op(RETURN, ERROR | ENOTTY)
    steps = [_op(LOAD, SECOND_ARGUMENT), _op(AND, GROUP), _op(JUMP_EQUAL, TERMINALS, no=1), _op(RETURN, ALLOW)]
    steps += [_op(JUMP_EQUAL, SOCKETS, yes=1), unknown]
    return [*steps, _op(LOAD, SECOND_ARGUMENT), *_among(LOADING, unknown), _op(RETURN, ALLOW)]


def _kinds() -> list[bytes]:
    """Return the steps for a socket that is to be made."""
    steps = [_op(LOAD, FIRST_ARGUMENT), _op(JUMP_EQUAL, AF_UNIX, no=1), _op(RETURN, ALLOW)]
    steps += [_op(JUMP_EQUAL, AF_INET, yes=2), _op(JUMP_EQUAL, AF_INET6, yes=1), _op(RETURN, ERROR | EAFNOSUPPORT)]
    steps += [_op(LOAD, SECOND_ARGUMENT), _op(AND, TYPE)]
    other = _op(RETURN, ERROR | EPROTONOSUPPORT)
    for kind, protocols in TYPES:
        steps += _where(kind, [_op(LOAD, THIRD_ARGUMENT), *_among(protocols, _op(RETURN, ALLOW)), other])
    return [*steps, other]


def _where(value: int, steps: list[bytes]) -> list[bytes]:
    """Return ``steps``, each way through which returns, for this value of what is loaded."""
    return [_op(JUMP_EQUAL, value, no=len(steps)), *steps]


def _among(values: tuple[int, ...], answer: bytes) -> list[bytes]:
    return [step for value in values for step in (_op(JUMP_EQUAL, value, no=1), answer)]


def _op(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return code.to_bytes(2, "little") + bytes((yes, no)) + value.to_bytes(4, "little")
