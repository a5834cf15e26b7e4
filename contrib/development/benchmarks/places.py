"""Where spools lie, apart from the given directory: in memory, and in a loop image with a journal.

The cost of a spool depends on what its file system does for an fsync. Both places are file systems of their own,
mounted below the directory and removed at the end. A mount needs root. The image also needs a loop device and
mkfs.ext4.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

from benchmarks.deadline import Deadline

MEMORY, JOURNAL = "memory", "journal"
SIZE = 2 << 30  # bytes of each place
SOME_SIZE = f"size={SIZE}"


def provide(work: Path, stack: ExitStack, deadline: Deadline) -> dict[str, Path]:
    """Return the places by name, mounted until the ``stack`` ends; the deadline notes those that cannot be made."""
    image = work / f"{JOURNAL}.image"
    making: dict[str, list[list[str]]] = {
        MEMORY: [["mount", "-t", "tmpfs", "-o", SOME_SIZE, "spoold-bench"]],
        JOURNAL: [
            ["truncate", "-s", str(SIZE), str(image)],
            ["mkfs.ext4", "-q", "-F", "-O", "has_journal", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)],
            ["mount", "-t", "ext4", "-o", "loop", str(image)],
        ],
    }
    made = {}
    for name, commands in making.items():
        place = work / name
        place.mkdir()
        commands[-1].append(str(place))
        if failure := next(filter(None, map(_failure, commands)), ""):
            deadline.leave_out(f"rows with -{name}", failure)
            continue
        stack.callback(_failure, ["umount", "-l", str(place)])
        made[name] = place
        if os.geteuid() != 0:
            _failure(["chown", str(os.geteuid()), str(place)])
    return made


def _failure(command: list[str]) -> str:
    """Run a command as root; return why it failed, "" where it did not."""
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    try:
        done = subprocess.run([*as_root, *command], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"there is no program {(as_root or command)[0]}"
    return "" if done.returncode == 0 else f"{command[0]}: {' '.join(done.stderr.split()) or done.returncode}"
