"""Leftovers of a killed build in the store: the root of its sandbox, ``HASH-NAME.drv.chroot``.

Nix removes that root before it builds the same derivation again. But each user of builds has a user namespace of its
own, in which Nix may not remove another user's files. So a build that was ended while it had files in directories of
its own, below its ``/tmp``, would make that derivation fail from then on, for everybody.

Theory of operation: the root is removed in the namespace that has all users of builds. Nix holds locks on the outputs
of what it builds (flock(2), on ``OUTPUT.lock`` beside the output). So the root is abandoned if nobody holds them, and
these locks are held while it is removed. Nix may have removed a lock's file while we waited for it. Then another Nix
may have made a new one, and the root is left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

SUFFIX = ".chroot"
LOCK = ".lock"


def remove(chroot: Path, outputs: Sequence[Path], removing: Callable[[Path], None]) -> None:
    """Remove the root of a build's sandbox, by ``removing``, unless a build of these ``outputs`` runs."""
    if not os.path.lexists(chroot):
        return
    with contextlib.ExitStack() as held:
        if outputs and all(_locked(output.with_name(output.name + LOCK), held) for output in outputs):
            removing(chroot)


def _locked(path: Path, held: contextlib.ExitStack) -> bool:
    """Take a lock of Nix, and tell whether that worked. The group of builds may write there, so links do not count."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    held.callback(os.close, file)
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.callback(fcntl.flock, file, fcntl.LOCK_UN)  # a child between fork and exec has a copy
        ours, now = os.fstat(file), os.stat(path, follow_symlinks=False)
        return stat.S_ISREG(ours.st_mode) and (ours.st_dev, ours.st_ino) == (now.st_dev, now.st_ino)
    return False
