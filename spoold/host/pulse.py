"""Signs of life: when each thread of this process last did something.

A thread that works through a long list is alive, though it comes to no end for minutes. A thread that waits for a lock
that nobody releases is not. File operations tell the difference, so ``fsops`` notes them. A thread that the kernel
holds (a file server does not answer) can do nothing about it, and a restart would not help it either.
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
    """Return for how many seconds a thread has done nothing since ``since`` (monotonic); 0 if the kernel holds it."""
    latest = max(since, _beats.get(thread.ident or 0, 0.0))
    silent = time.monotonic() - latest
    return 0.0 if silent <= 0.0 or _is_held(thread.native_id) else silent


def _is_held(thread: int | None) -> bool:
    """Tell whether the kernel keeps a thread waiting where no signal reaches it."""
    try:
        return Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()[0] == "D"
    except (OSError, IndexError):
        return False
