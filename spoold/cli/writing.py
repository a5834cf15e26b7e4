"""Files that commands write for people, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys

from spoold.host import fsops

STDOUT = "-"


def write(path: str, data: bytes) -> None:
    """Write a file in one step, durably. ``-`` is standard output.

    A file of that name is replaced. If the name is a link, the link stays, and the file that it leads to is replaced. A
    special file, such as /dev/stdout, is written to. Raises OSError.
    """
    if path == STDOUT:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    elif _is_special(path):
        with open(path, "wb") as file:
            file.write(data)
    else:
        _replace(os.path.realpath(path), data)


def _is_special(path: str) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _replace(path: str, data: bytes) -> None:
    private = os.path.join(os.path.dirname(path), f".{os.path.basename(path)[:200]}.{secrets.token_hex(4)}.tmp")
    try:
        with open(private, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fsops.replace(private, path)
        fsops.sync_directory(os.path.dirname(path))
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(private)
        raise
