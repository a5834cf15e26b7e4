"""Processes that a test stopped or killed.

Each of their threads first finishes its system call, which may be a renewal.
"""

from __future__ import annotations

import contextlib
from pathlib import Path


def stands_still(pid: int) -> bool:
    """Tell whether a process that was sent SIGSTOP or SIGKILL has come to a halt."""
    states = set()
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # this thread has ended
            states.add(stat.read_text().rpartition(")")[2].split()[0])
    return states <= {"T", "Z", "X"}
