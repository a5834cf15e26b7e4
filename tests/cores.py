"""A handler of core dumps, like apport: the kernel starts it as root of the host whenever a program crashes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel import set_to

PATTERN = Path("/proc/sys/kernel/core_pattern")
NAME = "crash"  # name of the programs that tests crash, which tells them from others that crash meanwhile
# For sh. Each command crashes in another way, after it asked for another limit. The copy of bash has a name of its own.
CRASHES = """
set +e
cp "$(command -v bash)" ./crash && chmod +x ./crash
./crash -c 'kill -SEGV $$'
./crash -c 'ulimit -S -c 0; kill -ABRT $$'
./crash -c 'ulimit -c 0 && ulimit -c unlimited && kill -SEGV $$'
( ulimit -H -c 0; ./crash -c 'kill -QUIT $$' )
true
"""
# For Python. It sets the limit by a raw system call, which the C library does not see.
RAW = """
import ctypes, os, signal
libc = ctypes.CDLL(None)
libc.prctl(15, b"crash", 0, 0, 0)
number = 160 if os.uname().machine == "x86_64" else 164
print("set", libc.syscall(number, 4, (ctypes.c_uint64 * 2)(0, 0)), flush=True)
os.kill(os.getpid(), signal.SIGSEGV)
"""


@contextlib.contextmanager
def handled() -> Iterator[Callable[[], int]]:
    """Install a handler for the block. Yield a function that returns for how many crashes of tests it was started."""
    if os.geteuid() != 0 or not os.access(PATTERN, os.W_OK):
        pytest.skip("only root can set a handler of core dumps")
    directory = Path(tempfile.mkdtemp(prefix="core", dir="/tmp"))  # the kernel takes 128 bytes at most
    (directory / "h").write_text(f'#!/bin/sh\necho "$1" >>{directory}/log\n')
    (directory / "h").chmod(0o755)

    def count() -> int:
        """Count the crashes before this call. A crash of our own marks the end, because the handler runs in order."""
        lines = _lines(directory)
        subprocess.run(["sh", "-c", "ulimit -c 0; exec sh -c 'kill -SEGV $$'"], check=False)
        while len(_lines(directory)) == len(lines):
            time.sleep(0.01)
        return _lines(directory).count(NAME)

    try:
        with set_to(PATTERN, f"|{directory}/h %e"):
            yield count
    finally:
        shutil.rmtree(directory)


def _lines(directory: Path) -> list[str]:
    log = directory / "log"
    return log.read_text().split() if log.exists() else []
