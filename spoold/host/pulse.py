"""Signs of life: when each thread of this process did something last.

A thread that works through a long list is alive though it comes to no end for minutes; one that waits for a lock that
nobody lets go of is not. File operations tell the difference, so ``fsops`` notes them. A thread that the kernel holds
(a file server that does not answer) can do nothing about it, and to be started again would not help it either.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

_beats: dict[int, float] = {}


def beat() -> None:
    """Note that the calling thread did something."""
    _beats[threading.get_ident()] = time.monotonic()


def silence(thread: threading.Thread, since: float) -> float:
    """Return for how many seconds a thread did nothing after ``since``, on the monotonic clock; 0 where it may not."""
    latest = max(since, _beats.get(thread.ident or 0, 0.0))
    silent = time.monotonic() - latest
    return 0.0 if silent <= 0.0 or _is_held(thread.native_id) else silent


def _is_held(thread: int | None) -> bool:
    """Tell whether the kernel keeps a thread waiting where no signal reaches it."""
    try:
        return Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()[0] == "D"
    except (OSError, IndexError):
        return False
