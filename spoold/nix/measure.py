"""How much a builder or an evaluation has written, while it writes; and how to be rid of it.

Theory of operation: what is looked at here was made by a client's program, in any shape: deeper than a path can name,
wider than memory likes, changing meanwhile. The walk is bounded by the limits that it checks, never recurses, and what
cannot be measured counts as too much. Removal is rm(1)'s, which copes with any depth and follows nothing.

What builders make belongs to their own user and is closed to us. So this file is a program too, which looks at a build
while that runs, as root of the namespace that builders are in (:mod:`spoold.nix.looker` starts it, and says what to
look at). It imports nothing of spoold, and little else.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import select
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

REMOVAL = 600.0  # seconds
PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin:/run/current-system/sw/bin"}  # whatever the daemon's own is
TICK = 0.05  # seconds between two looks, at least
_MAPPED = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ ([0-9a-f]+):([0-9a-f]+) ([0-9]+) .*\(deleted\)$")


def outgrown(places: Iterable[object], *, size: int, files: int, unnamed: int = 0) -> str:
    """Return which of the limits the trees below ``places`` are over together, in words; "" when neither.

    ``unnamed`` is the bytes that are in no tree any more, see below.
    """
    return measured(places, size=size, files=files, unnamed=unnamed)[1]


def measured(places: Iterable[object], *, size: int, files: int, unnamed: int = 0) -> tuple[int, str]:
    """Return the bytes that were found, and what :func:`outgrown` says."""
    used, count = unnamed, 0
    if used > size:
        return used, f"more than {size} bytes were written, into files that have no name any more"
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
                        return used, f"more than {files} files were made"
                    if used > size:
                        return used, f"more than {size} bytes were written"
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return used, "directories were made that are too deep to be measured"
            continue  # gone meanwhile
    return used, ""


def processes_of(uid: int) -> Iterator[int]:
    """Yield the processes of a user that we see."""
    with os.scandir("/proc") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # it ended meanwhile
                if entry.name.isdigit() and entry.stat().st_uid == uid:
                    yield int(entry.name)


def unnamed(pids: Iterable[int], disk: int) -> int:
    """Return the bytes on the device ``disk`` in files that have no name and that one of ``pids`` has open or mapped.

    A file that was removed takes its place until nobody has it any more, and stands in no directory.
    """
    sizes: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):  # it ended meanwhile
            for inode, size in _mapped(pid, disk):
                sizes[inode] = max(size, sizes.get(inode, 0))
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):  # it was closed meanwhile
                    found = os.stat(f"/proc/{pid}/fd/{descriptor}")
                    if stat.S_ISREG(found.st_mode) and found.st_nlink == 0 and found.st_dev == disk:
                        sizes[found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())


def _mapped(pid: int, disk: int) -> Iterator[tuple[int, int]]:
    """Yield inodes and bytes of files without a name that a process has mapped; see /proc/pid/maps in proc(5)."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.endswith("(deleted)\n") and (match := _MAPPED.match(line.rstrip("\n"))):
                begin, end, major, minor = (int(word, 16) for word in match.groups()[:4])
                if os.makedev(major, minor) == disk:
                    yield int(match[5]), end - begin


def remove(path: object, entering: Callable[[Sequence[str]], list[str]] = list) -> None:
    """Remove a tree, whatever is in it; what cannot be removed now is left for the next start.

    ``entering`` leads to where what is in there can be removed, see :class:`spoold.host.userns.UserNamespace`.
    """
    import shutil  # noqa: PLC0415 - not for the program that this file is as well
    import subprocess  # noqa: PLC0415 - as above

    rm = shutil.which("rm", path=PATH["PATH"]) or "rm"
    command = entering([rm, "-rf", "--one-file-system", "--", str(path)])
    nothing = subprocess.DEVNULL
    # Not there or out of time: then the next start has another go.
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, stdin=nothing, stdout=nothing, stderr=nothing, timeout=REMOVAL, check=False, env=PATH)


def main() -> None:
    """Look again and again, and print each time what was found: the bytes, and the limit that is passed or "".

    The first line of standard input says what to look at: ``places``, ``size`` and ``files`` as above, ``uid``, whose
    files without a name on the device ``disk`` count (-1: nobody's). A byte after it asks for a look at once; else a
    look comes after ten times as long as one takes. The end of standard input is the end.
    """
    order = json.loads(sys.stdin.readline())
    while True:
        began = time.monotonic()
        hidden = unnamed(processes_of(order["uid"]), order["disk"]) if order["uid"] >= 0 else 0
        found = measured(order["places"], size=order["size"], files=order["files"], unnamed=hidden)
        print(json.dumps(found), flush=True)
        ready, _, _ = select.select([0], [], [], max(TICK, 10 * (time.monotonic() - began)))
        if ready and not os.read(0, 4096):
            return


if __name__ == "__main__":
    main()
