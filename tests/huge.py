"""Huge pages of the host, which any process may ask for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.kernel import set_to

NUMBER = Path("/proc/sys/vm/nr_hugepages")
# Asks for huge pages in each way that exists: mmap, memfd_create, shmget.
TRIES = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
x86 = os.uname().machine == "x86_64"
for number, arguments in (
    (9 if x86 else 222, (0, 1 << 21, 3, 0x40022, -1, 0)),
    (319 if x86 else 279, (b"huge", 4)),
    (29 if x86 else 194, (0, 1 << 21, 0o4600)),
):
    ctypes.set_errno(0)
    arguments = [each if isinstance(each, bytes) else ctypes.c_long(each) for each in arguments]
    print(libc.syscall(ctypes.c_long(number), *arguments), ctypes.get_errno())
"""
REFUSED = "-1 12\n" * 3


@contextlib.contextmanager
def pages() -> Iterator[None]:
    """Make the host hold some ready, where we may. A host without any has only memfd_create to refuse."""
    if os.geteuid() != 0 or not os.access(NUMBER, os.W_OK):
        yield
        return
    with set_to(NUMBER, "4"):
        yield
