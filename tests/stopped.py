"""Processes that a test stopped or killed: each thread of theirs ends first what it is at, a renewal maybe."""

from __future__ import annotations

import contextlib
from pathlib import Path


def stands_still(pid: int) -> bool:
    """Tell whether a process that was sent SIGSTOP or SIGKILL does nothing any more."""
    states = set()
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # this one has ended
            states.add(stat.read_text().rpartition(")")[2].split()[0])
    return states <= {"T", "Z", "X"}
