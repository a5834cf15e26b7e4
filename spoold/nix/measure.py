"""How much a builder or an evaluation has written, while it writes; and how to be rid of it.

Theory of operation: what is looked at here was made by a client's program, in any shape: deeper than a path can name,
wider than memory likes, changing meanwhile. The walk is bounded by the limits that it checks, never recurses, and what
cannot be measured counts as too much. Removal is rm(1)'s, which copes with any depth and follows nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from subprocess import DEVNULL

REMOVAL = 600.0  # seconds
PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin:/run/current-system/sw/bin"}  # whatever the daemon's own is


def outgrown(places: Iterable[Path], *, size: int, files: int) -> str:
    """Return which of the limits the trees below ``places`` are over together, in words; "" when neither."""
    used = count = 0
    todo = [str(place) for place in places]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    count += 1
                    used += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    if count > files:
                        return f"more than {files} files were made"
                    if used > size:
                        return f"more than {size} bytes were written"
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return "directories were made that are too deep to be measured"
            continue  # gone meanwhile, or closed to us by its owner: the free space on the disk is watched as well
    return ""


def remove(path: Path) -> None:
    """Remove a tree, whatever is in it; what cannot be removed now is left for the next start."""
    command = [shutil.which("rm", path=PATH["PATH"]) or "rm", "-rf", "--one-file-system", "--", str(path)]
    # Not there or out of time: then the next start has another go.
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, timeout=REMOVAL, check=False, env=PATH)
