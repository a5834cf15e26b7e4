"""Watch over the kernel's resources that all programs of this host share and no control group divides."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

SYSCTL = Path("/proc/sys")
NEARLY = 3 / 4


def of_host() -> str:
    """Return in words which resource the kernel might soon refuse to any program, or "" where there is enough."""
    for what, used, most in (
        ("pseudo-terminals", "kernel/pty/nr", "kernel/pty/max"),
        ("open files", "fs/file-nr", "fs/file-max"),
    ):
        taken, there = _first(SYSCTL / used), _first(SYSCTL / most)
        kept = _first(SYSCTL / "kernel/pty/reserve") or 0 if used.startswith("kernel/pty") else 0
        if taken is not None and there is not None and taken > (there - kept) * NEARLY:
            return f"{what} of the host are running out: {taken} of {there}, see sysctl {most}"
    return _of_sockets() or _of_processes()


def _of_sockets() -> str:
    """Look at the memory of all sockets of the host. Beyond a limit the kernel drops what is sent."""
    for line in _text(SYSCTL.parent / "net/sockstat").splitlines():
        name, _, rest = line.partition(":")
        taken = re.search(r" mem ([0-9]+)", rest)
        limits = _text(SYSCTL / f"net/ipv4/{name.lower()}_mem").split()
        if taken and limits and int(taken[1]) > int(limits[-1]) * NEARLY:
            return f"memory for {name} of the host is running out, see sysctl net.ipv4.{name.lower()}_mem"
    return ""


def _of_processes() -> str:
    with contextlib.suppress(OSError, ValueError, IndexError):
        there, most = int((SYSCTL.parent / "loadavg").read_text().split()[3].partition("/")[2]), most_processes()
        if there > most * NEARLY:
            return f"processes of the host are running out: {there} of {most}, see sysctl kernel"
    return ""


def most_processes() -> int:
    """Return how many processes this host can have."""
    return min(_first(SYSCTL / "kernel" / name) or sys.maxsize for name in ("pid_max", "threads-max"))


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _first(file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(file.read_text().split()[0])
    return None
