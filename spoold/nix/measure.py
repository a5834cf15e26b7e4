"""How much a builder or an evaluation has written, while it writes; and how to be rid of it.

Theory of operation: what is looked at here was made by a client's program, in any shape: deeper than a path can name,
wider than memory likes, changing meanwhile. The walk is bounded by the limits that it checks, never recurses, and what
cannot be measured counts as too much. Removal is rm(1)'s, which copes with any depth and follows nothing.

What builders make belongs to their own user and is closed to us. So this file is a program too, which looks at a build
while that runs, as root of the namespace that builders are in (:mod:`spoold.nix.looker` starts it, and says what to
look at). It imports nothing of spoold, and little else.

A build can evade looks. It moves a directory to where the walk has been, hands a file on to a process that was born
after the list of them was read, or leaves it on its way through a socket. So there is a second account beside what is
found: how much the processes of the build have written, as the kernel counts it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import select
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

REMOVAL = 600.0  # seconds
PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin:/run/current-system/sw/bin"}  # whatever the daemon's own is
FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
DEEPEST = 2000  # directories one in another; each takes two descriptors while the walk is in it
LISTS = 4  # lists that leave a directory out before it counts as gone
TRIES = 200  # to enter a directory that is renamed meanwhile
OPEN = 100_000  # files that the processes of a build may have open together
TICK, REST = 0.05, 60.0  # seconds between two looks, at least and at most
SOCKETS = 1024  # that the processes of a build may have open together: what waits in them is not always counted
ENDED = "ZXx"  # states of a thread, see proc_pid_stat(5)
KCMP = {"x86_64": 312, "aarch64": 272}  # system calls
KCMP_FILES = 2  # see kcmp(2)
_MAPPED = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ ([0-9a-f]+):([0-9a-f]+) ([0-9]+) .*\(deleted\)$")


def outgrown(places: Iterable[object], *, size: int, files: int, unnamed: int = 0) -> str:
    """Return which of the limits the trees below ``places`` are over together, in words; "" when neither.

    ``unnamed`` is the bytes that are in no tree any more, see below.
    """
    return measured(places, size=size, files=files, unnamed=unnamed)[1]


def measured(places: Iterable[object], *, size: int, files: int, unnamed: int = 0) -> tuple[int, str]:
    """Return the bytes that were found, and what :func:`outgrown` says."""
    walk = _Walk(size, files, unnamed)
    try:
        if unnamed > size:
            raise _TooMuchError(f"more than {size} bytes were written, into files that have no name any more")
        for place in places:
            walk.look(str(place))
    except _TooMuchError as error:
        return walk.used, str(error)
    return walk.used, ""


class _TooMuchError(Exception):
    """One of the limits is passed; in words."""


class _Walk:
    """A walk through trees that others change meanwhile: each directory is entered by a descriptor, never by a path.

    The name of a directory may be another one by the time that it is to be entered. It is looked up again then, by its
    number: or whoever renames what they fill, again and again, would be measured never.
    """

    def __init__(self, size: int, files: int, used: int) -> None:
        self.size, self.files = size, files
        self.used, self.count = used, 0

    def look(self, place: str) -> None:
        """Measure one tree."""
        open_: list[_Directory] = []
        try:
            with contextlib.suppress(OSError):  # gone meanwhile
                open_.append(_Directory(os.open(place, FLAGS)))
            while open_:
                below = self._next(open_[-1])
                if below is None:
                    open_.pop().close()
                elif len(open_) >= DEEPEST:
                    os.close(below)
                    raise _TooMuchError("directories were made that are too deep to be measured")
                else:
                    with contextlib.suppress(OSError):  # gone meanwhile
                        open_.append(_Directory(below))
        finally:
            for directory in open_:
                directory.close()

    def _next(self, directory: _Directory) -> int | None:
        """Measure what is in a directory up to the next one in it, and return that, open; None at the end."""
        for entry in directory.entries:
            if directory.has_seen(entry.inode()):
                continue
            self.count += 1
            if self.count > self.files:
                raise _TooMuchError(f"more than {self.files} files were made")
            with contextlib.suppress(OSError):  # gone meanwhile, or closed to us by its owner
                self.used += entry.stat(follow_symlinks=False).st_blocks * 512
            if self.used > self.size:
                raise _TooMuchError(f"more than {self.size} bytes were written")
            if entry.is_dir(follow_symlinks=False):
                below = _entered(directory.descriptor, entry.name, entry.inode())
                if below is not None:
                    return below
        return None


class _Directory:
    """A directory that is open, and what is in it."""

    RENAMES = 1000

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._seen: set[int] = set()
        self._again = 0
        try:
            self.entries: Iterator[os.DirEntry[str]] = os.scandir(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise _TooMuchError("directories were made that are too deep to be measured") from error
            raise

    def has_seen(self, inode: int) -> bool:
        """Tell whether a file was seen in here before: under another name, or renamed while the list was read."""
        if inode not in self._seen:
            self._seen.add(inode)
            return False
        self._again += 1
        if self._again > self.RENAMES + len(self._seen):  # the list could go on for ever
            raise _TooMuchError("what is in a directory is renamed too often to be measured")
        return True

    def close(self) -> None:
        """Close it."""
        if isinstance(self.entries, contextlib.AbstractContextManager):
            self.entries.__exit__(None, None, None)
        os.close(self.descriptor)


def _entered(here: int, name: str, inode: int) -> int | None:
    """Open a directory in the one that is open as ``here``, by whatever name it has by now; None where it is gone.

    A list that is read while names change may leave one out, so it counts as gone only when several do.
    """
    missing = 0
    for _ in range(TRIES):
        try:
            return os.open(name, FLAGS, dir_fd=here)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise _TooMuchError("directories were made that are too deep to be measured") from error
            return None  # closed to us by its owner, or something else by now
        with os.scandir(here) as entries:
            found = next((entry.name for entry in entries if entry.inode() == inode), "")
        missing += not found
        if missing > LISTS:
            return None
        name = found or name
    raise _TooMuchError("a directory is renamed too often to be measured")


def processes_of(uid: int) -> Iterator[int]:
    """Yield the processes of a user that we see."""
    with os.scandir("/proc") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # it ended meanwhile
                if entry.name.isdigit() and entry.stat().st_uid == uid:
                    yield int(entry.name)


def unnamed(pids: Iterable[int], disk: int) -> int:
    """Return the bytes on the device ``disk`` in files that have no name and that one of ``pids`` has open or mapped.

    A file that was removed takes its place until nobody has it any more, and stands in no directory. Raises
    :class:`OverflowError` where there is too much to be looked at.
    """
    sizes: dict[int, int] = {}
    sockets: set[int] = set()
    count = 0
    for pid in pids:
        for thread in _threads_apart(pid):
            with contextlib.suppress(OSError):  # it ended meanwhile
                for inode, size in _mapped(thread, disk):
                    sizes[inode] = max(size, sizes.get(inode, 0))
            for found in _opened(thread):
                count += 1
                if count > OPEN:
                    raise OverflowError(f"more than {OPEN} files were open at once")
                if stat.S_ISSOCK(found.st_mode):
                    sockets.add(found.st_ino)
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 0 and found.st_dev == disk:
                    sizes[found.st_ino] = found.st_blocks * 512
    if len(sockets) > SOCKETS:
        raise OverflowError(f"more than {SOCKETS} sockets were open at once")
    return sum(sizes.values())


def _threads_apart(pid: int) -> Iterator[str]:
    """Yield a directory of /proc for each table of open files that threads of a process have: as a rule there is one.

    A thread that has ended shows none, be it the first one, after which the process is named.
    """
    first = 0
    with contextlib.suppress(OSError):  # it ended meanwhile
        for thread in map(int, os.listdir(f"/proc/{pid}/task")):
            if not (first and _share_files(first, thread)) and _state(pid, thread) not in ENDED:
                first = first or thread
                yield f"/proc/{pid}/task/{thread}"


def _share_files(one: int, other: int) -> bool:
    """Tell whether two threads have one table of open files; not known is no."""
    import ctypes  # noqa: PLC0415 - few builds have threads, and it takes a while

    number = KCMP.get(os.uname().machine)
    return number is not None and ctypes.CDLL(None).syscall(number, one, other, KCMP_FILES, 0, 0) == 0


def _opened(thread: str) -> Iterator[os.stat_result]:
    """Yield what a thread has open."""
    with contextlib.suppress(OSError):  # it ended meanwhile
        for descriptor in os.listdir(f"{thread}/fd"):
            with contextlib.suppress(OSError):  # it was closed meanwhile
                yield os.stat(f"{thread}/fd/{descriptor}")


def _mapped(thread: str, disk: int) -> Iterator[tuple[int, int]]:
    """Yield inodes and bytes of files without a name that a process has mapped; see proc_pid_maps(5)."""
    with open(f"{thread}/maps", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.endswith("(deleted)\n") and (match := _MAPPED.match(line.rstrip("\n"))):
                begin, end, major, minor = (int(word, 16) for word in match.groups()[:4])
                if os.makedev(major, minor) == disk:
                    yield int(match[5]), end - begin


def _state(pid: int, thread: int) -> str:
    """Return the letter that tells what a thread does, see proc_pid_stat(5); one that is gone has ended."""
    with (
        contextlib.suppress(OSError),
        open(f"/proc/{pid}/task/{thread}/stat", encoding="utf-8", errors="replace") as file,
    ):
        return file.read().rpartition(")")[2].split()[0]
    return "X"


class Ledger:
    """How many bytes the processes of a build have written to disks, as the kernel counts it; see proc_pid_io(5).

    ``wrote`` is what was seen of them at once. The count of a process includes those of its children that it has waited
    for. ``at_most`` has those as well that nobody waits for, and some of the others twice.
    """

    def __init__(self) -> None:
        self.wrote = self._past = 0
        self._seen: dict[tuple[int, str], int] = {}

    @property
    def at_most(self) -> int:
        """Return what was seen of all that are or were there."""
        return self._past + sum(self._seen.values())

    def look(self, pids: Iterable[int]) -> None:
        """Take notice of what the processes have written by now."""
        now = {}
        for pid in pids:
            with contextlib.suppress(OSError, IndexError):  # it ended meanwhile
                now[pid, _since(pid)] = _written(pid)
        self._past += sum(size for process, size in self._seen.items() if process not in now)
        self._seen = now
        self.wrote = max(self.wrote, sum(now.values()))


def _written(pid: int) -> int:
    with open(f"/proc/{pid}/io", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))


def _since(pid: int) -> str:
    """Return when a process began, which tells it from a later one of its number."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[19]


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
    """Look again and again, and print each time what was found: the bytes, the limit that is passed or "", what Ledger
    says, and whether it was asked for.

    The first line of standard input says what to look at: ``places``, ``size`` and ``files`` as above, ``uid``, whose
    files without a name on the device ``disk`` count, and whose writing (-1: nobody's). A byte after it asks for a look
    at once; else a look comes after ten times as long as one takes, REST at most. The end of standard input is the end.
    """
    order = json.loads(sys.stdin.readline())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ledger, asked = Ledger(), False
    while True:
        began = time.monotonic()
        used, said = _looked(order)
        if order["uid"] >= 0:
            ledger.look(processes_of(order["uid"]))
        print(json.dumps((used, said, ledger.wrote, ledger.at_most, asked)), flush=True)
        ready, _, _ = select.select([0], [], [], min(REST, max(TICK, 10 * (time.monotonic() - began))))
        asked = bool(ready)
        if asked and not os.read(0, 4096):
            return


def _looked(order: dict[str, Any]) -> tuple[int, str]:
    try:
        hidden = unnamed(processes_of(order["uid"]), order["disk"]) if order["uid"] >= 0 else 0
    except OverflowError as error:
        return 0, str(error)
    return measured(order["places"], size=order["size"], files=order["files"], unnamed=hidden)


if __name__ == "__main__":
    main()
