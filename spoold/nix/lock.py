"""The lock that keeps builds and collections apart.

Theory of operation: a collection would delete paths that a build has made and not yet rooted. Nix's temporary roots do
not help, since they go by pid and mean nothing in another pid namespace. So a build holds a shared lock from before its
evaluation until its root is there. Every step of a collection holds the lock exclusively. The locks are the kernel's,
on open files (flock(2)): after kill -9 none is left, and threads of one process lock each other out too.

A stream of builds could keep a collection out for ever. So everybody takes a second lock first, the turnstile. A
collection that waits for the exclusive lock keeps the turnstile closed to new builds. It does so only while its
patience lasts, since one long build must not hold up all other builds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

from spoold.model.errors import TemporaryError

POLL = 0.02  # seconds between tries. A blocking flock(2) could be neither cancelled nor bounded


class BuildLock:
    """The lock of one state directory."""

    def __init__(self, state: Path) -> None:
        self._turnstile = state / "turnstile.lock"
        self._store = state / "store.lock"

    @contextlib.contextmanager
    def shared(self, cancel: Event) -> Iterator[None]:
        """Keep collections out. Raises :class:`TemporaryError` when cancelled while it waits for a collection."""
        with contextlib.ExitStack() as held:
            with _open(self._turnstile) as turnstile:
                got = _acquire(turnstile, fcntl.LOCK_SH, cancel.is_set)
                store = held.enter_context(_open(self._store))
                if not got or not _acquire(store, fcntl.LOCK_SH, cancel.is_set):
                    raise TemporaryError("the build was cancelled while it waited for a collection")
            yield

    @contextlib.contextmanager
    def exclusive(self, patience: float, cancel: Event) -> Iterator[bool]:
        """Keep builds out. Yields false when the running builds have not ended after ``patience`` seconds."""
        deadline = time.monotonic() + patience

        def given_up() -> bool:
            return cancel.is_set() or time.monotonic() >= deadline

        with _open(self._turnstile) as turnstile, _open(self._store) as store:
            yield _acquire(turnstile, fcntl.LOCK_EX, given_up) and _acquire(store, fcntl.LOCK_EX, given_up)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        yield fd
    finally:
        # Unlocked explicitly: a child between fork and exec has a copy of the descriptor, which would hold the lock.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def _acquire(fd: int, kind: int, given_up: Callable[[], bool]) -> bool:
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return True
        if given_up():
            return False
        time.sleep(POLL)
