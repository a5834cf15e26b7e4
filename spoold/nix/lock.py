"""Builds and collections keep out of each other's way.

Theory of operation: what a build has made and not yet rooted, a collection would take; the temporary roots of Nix go by
pid and mean nothing between pid namespaces. So a build holds a shared lock from before its evaluation until its root
is there, and every step of a collection an exclusive one. They are locks of the kernel's on open files: kill -9 leaves
none, and threads of one process count as strangers.

A stream of builds could keep a collection out for ever. So the way to the lock leads through a turnstile, and who waits
for the exclusive lock keeps it closed; but only for so long as its patience lasts, since one long build must not hold
up all others.
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

POLL = 0.02  # seconds; flock(2) itself could be neither cancelled nor bounded


class BuildLock:
    """The lock of one state directory."""

    def __init__(self, state: Path) -> None:
        self._turnstile = state / "turnstile.lock"
        self._store = state / "store.lock"

    @contextlib.contextmanager
    def shared(self, cancel: Event) -> Iterator[None]:
        """Keep collections out; raises :class:`TemporaryError` when cancelled while waiting for one to make room."""
        with contextlib.ExitStack() as held:
            with _open(self._turnstile) as turnstile:
                got = _acquire(turnstile, fcntl.LOCK_SH, cancel.is_set)
                store = held.enter_context(_open(self._store))
                if not got or not _acquire(store, fcntl.LOCK_SH, cancel.is_set):
                    raise TemporaryError("the build was cancelled while it waited for a collection")
            yield

    @contextlib.contextmanager
    def exclusive(self, patience: float, cancel: Event) -> Iterator[bool]:
        """Keep builds out; yields false when those that run have not ended after ``patience`` seconds."""
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
        # Explicitly: a child between fork and exec has a copy of the descriptor, which would hold the lock.
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
