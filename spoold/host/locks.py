"""Locks between processes on files of ours (flock(2)), shared or exclusive. Callers wait until they have the lock."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import threading
import weakref
from collections.abc import Callable, Iterator

from spoold.host import fsops


@contextlib.contextmanager
def locked(path: str, *, exclusive: bool) -> Iterator[None]:
    """Hold a lock on the file ``path`` inside the block.

    The file is opened for writing: NFS makes the lock one of its own kind, and an exclusive one of these needs that.
    """
    descriptor = fsops.open_own(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


class KeptLock:
    """A shared lock that one process takes again and again. Its file stays open, so that no watcher of it wakes up.

    The file is open for reading, since a file system with a file that is open for writing cannot be made read-only. One
    thread has the lock at a time, since the lock belongs to the open file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        self._close: Callable[[], object] = lambda: None
        self._thread = threading.Lock()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock inside the block."""
        with self._thread:
            file = self._opened()
            fcntl.flock(file, fcntl.LOCK_SH)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)

    def _opened(self) -> io.FileIO:
        """Return the open file; where somebody removed it, the one that others lock by now."""
        if self._file and not fsops.stands_for(self._path, self._file):
            self._close()
            self._file = None
        while self._file is None:
            self._file = fsops.keep_open(self._path)
            if self._file is None:
                os.close(fsops.open_own(self._path, os.O_RDWR))
            else:
                # Each object that uses a spool has a lock like this for as long as it does. A __del__ would not do: in
                # a cycle that is garbage Python may end the file first, with a warning that nobody closed it.
                self._close = weakref.finalize(self, self._file.close)
        return self._file
