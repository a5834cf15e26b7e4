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
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path
from subprocess import DEVNULL

REMOVAL = 600.0  # seconds
PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin:/run/current-system/sw/bin"}  # whatever the daemon's own is


def outgrown(places: Iterable[Path], *, size: int, files: int, unnamed: int = 0) -> str:
    """Return which of the limits the trees below ``places`` are over together, in words; "" when neither.

    ``unnamed`` is the bytes that are in no tree any more, see below.
    """
    used, count = unnamed, 0
    if used > size:
        return f"more than {size} bytes were written, into files that have no name any more"
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
            continue  # gone meanwhile, or closed to us by its owner
    return ""


def unnamed(pids: Iterable[int], disk: int) -> int:
    """Return the bytes on the device ``disk`` in files that have no name and that one of ``pids`` has open.

    A file that was removed while it is open takes its place until it is closed, and stands in no directory.
    """
    sizes: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):  # it ended meanwhile
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):  # it was closed meanwhile
                    found = os.stat(f"/proc/{pid}/fd/{descriptor}")
                    if stat.S_ISREG(found.st_mode) and found.st_nlink == 0 and found.st_dev == disk:
                        sizes[found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())


def remove(path: Path) -> None:
    """Remove a tree, whatever is in it; what cannot be removed now is left for the next start."""
    command = [shutil.which("rm", path=PATH["PATH"]) or "rm", "-rf", "--one-file-system", "--", str(path)]
    # Not there or out of time: then the next start has another go.
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, timeout=REMOVAL, check=False, env=PATH)
