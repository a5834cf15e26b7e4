"""Settings of the kernel, which all processes of tests on a machine share."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def set_to(setting: Path, value: str) -> Iterator[None]:
    """Change a setting of the kernel in the block. Another test that changes it waits for the end of the block."""
    with setting.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = setting.read_text()
        setting.write_text(value)
        try:
            yield
        finally:
            setting.write_text(before)
