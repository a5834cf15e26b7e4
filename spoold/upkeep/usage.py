"""Usage: how many slot-seconds each owner used lately, as executors note it for ``spoolctl top``.

Spec: spool-layout.md, "Turns". Each executor keeps ``tmp/executor-<name>.usage``, and replaces it at times while its
slots have work. The file has a line ``<uid> <slot-seconds>`` for each of the ``MOST`` owners who used most, and a line
``others <slot-seconds>`` for all other owners together. A reader lets the numbers fade by the age of the file. Nothing
is decided by it. So it is not synced, and a file or line that cannot be read counts as nothing. Only the daemons may
read it, since it tells who is at work.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Mapping

from spoold.host import fsops
from spoold.model.ids import Kept, Private
from spoold.model.timeshare import HALF_LIFE

MOST = 20  # owners
LARGEST = 1 << 16  # bytes of a note
LINE = re.compile(r"([0-9]{1,10}|others) ([0-9]{1,12}\.[0-9]{3})")
OTHERS = None  # stands for the owners who have no line


def note(root: str, name: str, used: Mapping[int, float]) -> None:
    """Note how many slot-seconds each uid used lately. ``name`` is the executor's process."""
    ordered = sorted(used.items(), key=lambda each: -each[1])
    lines = [f"{uid} {seconds:.3f}\n" for uid, seconds in ordered[:MOST]]
    if len(ordered) > MOST:
        lines.append(f"others {sum(seconds for _, seconds in ordered[MOST:]):.3f}\n")
    path = os.path.join(root, "tmp", name + Kept.USAGE)
    private = path + Private.NOTE
    fsops.write_private(private, "".join(lines).encode(), sync=False)
    fsops.replace(private, path)


def noted(root: str, now: float) -> dict[int | None, float]:
    """Return the sum of what all executors noted, faded until ``now``, in seconds since the epoch.

    ``OTHERS`` is the key of the owners who have no line.
    """
    found: dict[int | None, float] = {}
    directory = os.path.join(root, "tmp")
    for name in fsops.names(directory):
        if name.endswith(Kept.USAGE):
            path = os.path.join(directory, name)
            faded = math.exp2(-max(0.0, now - (fsops.mtime(path) or now)) / HALF_LIFE)
            for owner, seconds in _read(path).items():
                found[owner] = found.get(owner, 0.0) + seconds * faded
    return found


def _read(path: str) -> dict[int | None, float]:
    data = None
    with contextlib.suppress(OSError):
        data = fsops.read(path, LARGEST)
    lines = [LINE.fullmatch(line) for line in (data or b"").decode(errors="replace").splitlines()]
    return {OTHERS if each[1] == "others" else int(each[1]): float(each[2]) for each in lines if each}
