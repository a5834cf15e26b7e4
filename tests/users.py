"""Accounts of the host. Several processes of tests may add and remove accounts at the same time."""

from __future__ import annotations

import subprocess

from tests.waiting import until

# another process changes accounts, or a process of the user is just ending
LATER = ("cannot lock", "currently used by process")


def change(*command: str) -> None:
    """Run useradd, usermod or userdel, again and again while it has to wait for something."""
    said = ""

    def is_done() -> bool:
        nonlocal said
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        said = done.stderr
        assert done.returncode == 0 or any(word in said for word in LATER), said
        return done.returncode == 0

    until(is_done, lambda: said)
