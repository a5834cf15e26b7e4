"""The bytes of a build that are in no directory: in files without a name, and by the kernel's count of its writing.

A build can evade looks at its trees (:mod:`spoold.nix.measure`). It can move a directory to where the walk has been
already. It can pass an open file on to a process that began after the list of processes was read, or leave the file in
a socket on the way. So there is a second account beside the bytes that are found: how much the processes of the build
have written, as the kernel counts it.

This is a part of the program beside a build (:mod:`spoold.nix.look`). It imports nothing of spoold.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator

OPEN = 100_000  # files that the processes of a build may have open together
SOCKETS = 1024  # sockets that they may have open together: not all bytes that wait in sockets are counted
ENDED = "ZXx"  # states of a thread, see proc_pid_stat(5)
KCMP = {"x86_64": 312, "aarch64": 272}  # system calls
KCMP_FILES = 2  # see kcmp(2)
_MAPPED = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ ([0-9a-f]+):([0-9a-f]+) ([0-9]+) .*\(deleted\)$")


def processes_of(uid: int) -> Iterator[int]:
    """Yield the processes of a user, as far as this program sees them."""
    with os.scandir("/proc") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # it ended meanwhile
                if entry.name.isdigit() and entry.stat().st_uid == uid:
                    yield int(entry.name)


def unnamed(pids: Iterable[int], disk: int) -> int:
    """Return the bytes on the device ``disk`` in nameless files that one of ``pids`` has open or mapped.

    A file that was removed is in no directory, but takes room until nobody has it open or mapped. Raises
    :class:`OverflowError` where there are too many files or sockets to look at.
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
    """Yield a thread's directory in /proc for each table of open files of a process. Usually there is one table.

    A thread that has ended shows no open files, even if it is the first thread, whose id is the process's pid.
    """
    first = 0
    with contextlib.suppress(OSError):  # it ended meanwhile
        for thread in map(int, os.listdir(f"/proc/{pid}/task")):
            if not (first and _share_files(first, thread)) and _state(pid, thread) not in ENDED:
                first = first or thread
                yield f"/proc/{pid}/task/{thread}"


def _share_files(one: int, other: int) -> bool:
    """Tell whether two threads share one table of open files. Return False where that cannot be found out."""
    import ctypes  # noqa: PLC0415 - few builds have threads, and the import takes a while

    number = KCMP.get(os.uname().machine)
    return number is not None and ctypes.CDLL(None).syscall(number, one, other, KCMP_FILES, 0, 0) == 0


def _opened(thread: str) -> Iterator[os.stat_result]:
    """Yield the status of each file that a thread has open."""
    with contextlib.suppress(OSError):  # it ended meanwhile
        for descriptor in os.listdir(f"{thread}/fd"):
            with contextlib.suppress(OSError):  # it was closed meanwhile
                yield os.stat(f"{thread}/fd/{descriptor}")


def _mapped(thread: str, disk: int) -> Iterator[tuple[int, int]]:
    """Yield the inode and the bytes of each nameless file that a thread has mapped. See proc_pid_maps(5)."""
    with open(f"{thread}/maps", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.endswith("(deleted)\n") and (match := _MAPPED.match(line.rstrip("\n"))):
                begin, end, major, minor = (int(word, 16) for word in match.groups()[:4])
                if os.makedev(major, minor) == disk:
                    yield int(match[5]), end - begin


def _state(pid: int, thread: int) -> str:
    """Return the letter of a thread's state, see proc_pid_stat(5). A thread that is gone has state X, for dead."""
    with (
        contextlib.suppress(OSError),
        open(f"/proc/{pid}/task/{thread}/stat", encoding="utf-8", errors="replace") as file,
    ):
        return file.read().rpartition(")")[2].split()[0]
    return "X"


class Ledger:
    """The bytes that the processes of a build have written to disks, as the kernel counts them. See proc_pid_io(5).

    ``wrote`` is the largest sum over processes that were there at the same time. The count of a process includes the
    children that it has waited for. ``at_most`` also has processes that nobody waits for, and counts some others twice.
    """

    def __init__(self) -> None:
        self.wrote = self._past = 0
        self._seen: dict[tuple[int, str], int] = {}

    @property
    def at_most(self) -> int:
        """Return the sum over all processes that are or were there."""
        return self._past + sum(self._seen.values())

    def look(self, pids: Iterable[int]) -> None:
        """Read how much the processes have written by now."""
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
    """Return when a process began, in the kernel's ticks. This tells it from a later process with the same pid."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[19]
