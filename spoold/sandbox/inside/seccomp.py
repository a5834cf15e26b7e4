"""A filter of system calls for the job, on top of the engine's own, which older engines have wider than it should be.

It refuses io_uring, whose requests no filter sees; sockets of all families but the four that ordinary programs use (a
network namespace does not hold AF_VSOCK, and AF_ALG reaches much of the kernel); and the calls of other architectures,
whose numbers mean something else.
"""

from __future__ import annotations

import ctypes
import os

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_EQUAL, JUMP_GREATER_EQUAL, RETURN = 0x20, 0x15, 0x35, 0x06  # classic BPF
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in what the filter sees; both machines are little-endian
ALLOW, ERROR = 0x7FFF0000, 0x00050000
EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97
X32 = 0x40000000  # x86's third set of numbers
IO_URING = (425, 426, 427)  # setup, enter, register: the same on all machines
FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}  # what the filter sees; the number of socket()


class Filter:
    """The filter, ready to be put on; made before the job comes, as starting a job should be quick."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        program = _program(*MACHINES[os.uname().machine])
        self._instructions = ctypes.create_string_buffer(program, len(program))
        count, pointer = len(program) // 8, ctypes.addressof(self._instructions)
        self._head = ctypes.create_string_buffer(  # struct sock_fprog: a 16-bit count, padding, a pointer
            count.to_bytes(8, "little") + pointer.to_bytes(8, "little"), 16
        )

    def put_on(self) -> None:
        """Filter this process and all that come of it."""
        self._prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        self._prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, self._head, 0, 0)

    def _prctl(self, *arguments: object) -> None:
        if self._libc.prctl(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def _program(architecture: int, socket: int) -> bytes:
    refuse, no_call = _op(RETURN, ERROR | EPERM), _op(RETURN, ERROR | ENOSYS)
    steps = [_op(LOAD, ARCHITECTURE), _op(JUMP_EQUAL, architecture, yes=1), no_call]
    steps += [_op(LOAD, NUMBER), _op(JUMP_GREATER_EQUAL, X32, no=1), no_call]
    for number in IO_URING:
        steps += [_op(JUMP_EQUAL, number, no=1), refuse]
    steps += [_op(JUMP_EQUAL, socket, yes=1), _op(RETURN, ALLOW), _op(LOAD, FIRST_ARGUMENT)]
    for family in FAMILIES:
        steps += [_op(JUMP_EQUAL, family, no=1), _op(RETURN, ALLOW)]
    return b"".join([*steps, _op(RETURN, ERROR | EAFNOSUPPORT)])


def _op(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return code.to_bytes(2, "little") + bytes((yes, no)) + value.to_bytes(4, "little")
