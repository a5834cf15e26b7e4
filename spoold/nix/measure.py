"""How much a builder or an evaluation has written, while it writes; and how to be rid of it.

Theory of operation: what is looked at here was made by a client's program, in any shape: deeper than a path can name,
wider than memory likes, changing meanwhile. The walk is bounded by the limits that it checks, never recurses, and what
cannot be measured counts as too much. Removal is rm(1)'s, which copes with any depth and follows nothing.

It is a part of the program beside a build as well (:mod:`spoold.nix.look`). So it imports nothing of spoold.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

REMOVAL = 600.0  # seconds
PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin:/run/current-system/sw/bin"}  # whatever the daemon's own is
FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
DEEPEST = 2000  # directories one in another; each takes two descriptors while the walk is in it
LISTS = 4  # lists that leave a directory out before it counts as gone
TRIES = 200  # to enter a directory that is renamed meanwhile


def outgrown(places: Iterable[object], *, size: int, files: int, unnamed: int = 0) -> str:
    """Return which of the limits the trees below ``places`` are over together, in words; "" when neither.

    ``unnamed`` is the bytes that are in no tree any more (:mod:`spoold.nix.hidden`).
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


def remove(path: object, entering: Callable[[Sequence[str]], list[str]] = list) -> None:
    """Remove a tree, whatever is in it; what cannot be removed now is left for the next start.

    ``entering`` leads to where what is in there can be removed, see :class:`spoold.host.userns.UserNamespace`.
    """
    import shutil  # noqa: PLC0415 - not for the program beside a build
    import subprocess  # noqa: PLC0415 - as above

    rm = shutil.which("rm", path=PATH["PATH"]) or "rm"
    command = entering([rm, "-rf", "--one-file-system", "--", str(path)])
    nothing = subprocess.DEVNULL
    # Not there or out of time: then the next start has another go.
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, stdin=nothing, stdout=nothing, stderr=nothing, timeout=REMOVAL, check=False, env=PATH)
