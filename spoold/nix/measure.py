"""Measure how much a builder or an evaluation has written, while it writes. Remove such trees.

Theory of operation: a client's program made the trees, and they may have any shape. They may be deeper than a path can
name or wider than fits into memory, and may change meanwhile. The walk is bounded by the limits that it checks, and
never recurses. A tree that cannot be measured counts as too large. rm(1) does the removal: it copes with any depth, and
follows no link.

This is also a part of the program beside a build (:mod:`spoold.nix.look`). So it imports nothing of spoold.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

REMOVAL = 600.0  # seconds
PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin:/run/current-system/sw/bin"}  # independent of the daemon's own PATH
FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
DEEPEST = 2000  # nested directories. Each takes two descriptors while the walk is in it
LISTS = 4  # a directory counts as gone when more listings than this lack it
TRIES = 200  # tries to enter a directory that is renamed meanwhile


def outgrown(places: Iterable[object], *, size: int, files: int, unnamed: int = 0) -> str:
    """Return in words which limit the trees below ``places`` pass together, or "" where they pass none.

    ``size`` is bytes. ``unnamed`` is the bytes that are no longer in a tree (:mod:`spoold.nix.hidden`).
    """
    return measured(places, size=size, files=files, unnamed=unnamed)[1]


def measured(places: Iterable[object], *, size: int, files: int, unnamed: int = 0) -> tuple[int, str]:
    """Return the bytes that were found, and what :func:`outgrown` returns."""
    walk = _Walk(size, files, unnamed)
    try:
        if unnamed > size:
            raise _TooMuchError(f"more than {size} bytes were written into deleted files, which have no name any more")
        for place in places:
            walk.look(str(place))
    except _TooMuchError as error:
        return walk.used, str(error)
    return walk.used, ""


class _TooMuchError(Exception):
    """One of the limits is passed. The text says which."""


class _Walk:
    """A walk through trees that others change meanwhile. Each directory is entered by a descriptor, never by a path.

    A directory may have another name by the time it is entered. In that case its name is looked up again, by its inode
    number. Otherwise a program that renames its directories again and again would never be measured.
    """

    def __init__(self, size: int, files: int, used: int) -> None:
        self.size, self.files = size, files
        self.used, self.count = used, 0

    def look(self, place: str) -> None:
        """Measure one tree."""
        open_: list[_Directory] = []
        try:
            with contextlib.suppress(OSError):  # it is gone by now
                open_.append(_Directory(os.open(place, FLAGS)))
            while open_:
                below = self._next(open_[-1])
                if below is None:
                    open_.pop().close()
                elif len(open_) >= DEEPEST:
                    os.close(below)
                    raise _TooMuchError("directories were made that are too deep to be measured")
                else:
                    with contextlib.suppress(OSError):  # it is gone by now
                        open_.append(_Directory(below))
        finally:
            for directory in open_:
                directory.close()

    def _next(self, directory: _Directory) -> int | None:
        """Measure the entries of a directory up to the next directory in it. Return that one open, at the end None."""
        for entry in directory.entries:
            if directory.has_seen(entry.inode()):
                continue
            self.count += 1
            if self.count > self.files:
                raise _TooMuchError(f"more than {self.files} files were made")
            with contextlib.suppress(OSError):  # it is gone by now, or its owner has closed it to others
                self.used += entry.stat(follow_symlinks=False).st_blocks * 512
            if self.used > self.size:
                raise _TooMuchError(f"more than {self.size} bytes were written")
            if entry.is_dir(follow_symlinks=False):
                below = _entered(directory.descriptor, entry.name, entry.inode())
                if below is not None:
                    return below
        return None


class _Directory:
    """A directory that is open, and its entries."""

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
        """Tell whether a file was seen in here before: it has two names, or was renamed while the list was read."""
        if inode not in self._seen:
            self._seen.add(inode)
            return False
        self._again += 1
        if self._again > self.RENAMES + len(self._seen):  # the list could go on for ever
            raise _TooMuchError("the files in a directory are renamed too often to be measured")
        return True

    def close(self) -> None:
        """Close it."""
        if isinstance(self.entries, contextlib.AbstractContextManager):
            self.entries.__exit__(None, None, None)
        os.close(self.descriptor)


def _entered(here: int, name: str, inode: int) -> int | None:
    """Open a directory inside the open directory ``here``, by the name that it has now. Return None where it is gone.

    A listing that is read while names change may leave a name out. So the directory counts as gone only when several
    listings lack it.
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
            return None  # its owner has closed it to others, or the name is that of another file by now
        with os.scandir(here) as entries:
            found = next((entry.name for entry in entries if entry.inode() == inode), "")
        missing += not found
        if missing > LISTS:
            return None
        name = found or name
    raise _TooMuchError("a directory is renamed too often to be measured")


def remove(path: object, entering: Callable[[Sequence[str]], list[str]] = list) -> None:
    """Remove a tree, whatever is in it. Files that cannot be removed now are left for the next start.

    ``entering`` makes a command run where it may remove the files, see :class:`spoold.host.userns.UserNamespace`.
    """
    import shutil  # noqa: PLC0415 - the program beside a build does not need it
    import subprocess  # noqa: PLC0415 - likewise

    rm = shutil.which("rm", path=PATH["PATH"]) or "rm"
    command = entering([rm, "-rf", "--one-file-system", "--", str(path)])
    nothing = subprocess.DEVNULL
    # If rm is missing or takes too long, the next start tries again.
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, stdin=nothing, stdout=nothing, stderr=nothing, timeout=REMOVAL, check=False, env=PATH)
