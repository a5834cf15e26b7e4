"""Directories for one call of a Nix program. Each has a lock, which tells others that its owner is alive.

A process that is killed leaves its directory behind, without a lock. The next process that prepares the store removes
it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

Remove = Callable[[Path], None]


@contextlib.contextmanager
def one(above: Path, remove: Remove) -> Iterator[Path]:
    """Make a directory in the directory ``above``, and ``remove`` it afterwards."""
    with _alone(above):
        path = Path(tempfile.mkdtemp(dir=above))
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield path
    finally:
        remove(path)
        os.close(lock)


@contextlib.contextmanager
def _alone(above: Path) -> Iterator[None]:
    """Keep others from locking directories in ``above``. They could take a new one, not locked yet, for abandoned."""
    lock = os.open(above, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def remove_abandoned(above: Path, remove: Remove) -> None:
    """Remove the directories in ``above`` whose owners are gone."""
    for path in above.iterdir():
        with contextlib.suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                with _alone(above):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(path)
            finally:
                os.close(lock)
