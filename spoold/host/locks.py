"""Locks between processes on files of ours (flock(2)), shared or exclusive. All of them wait."""

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

    It is opened for writing, since NFS makes a lock of its own kind of it, which an exclusive one needs there.
    """
    descriptor = fsops.open_own(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


class KeptLock:
    """A shared lock that one process takes again and again: its file stays open, and nobody who watches it wakes up.

    It is open for reading: a file system with a file that is open for writing cannot be made read-only. One thread has
    the lock at a time, since it belongs to the open file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        self._close: Callable[[], object] = lambda: None
        self._thread = threading.Lock()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold it inside the block."""
        with self._thread:
            file = self._opened()
            fcntl.flock(file, fcntl.LOCK_SH)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)

    def _opened(self) -> io.FileIO:
        """Return the open file. Where somebody removed it, others lock another one by now."""
        if self._file and not fsops.stands_for(self._path, self._file):
            self._close()
            self._file = None
        while self._file is None:
            self._file = fsops.keep_open(self._path)
            if self._file is None:
                os.close(fsops.open_own(self._path, os.O_RDWR))
            else:
                # There is a lock like this for each that uses a spool, as long as it does. A __del__ would not do: in
                # a cycle that is garbage the file may come first, with a warning that nobody closed it.
                self._close = weakref.finalize(self, self._file.close)
        return self._file
