"""The doctor's look at what this kernel does for a job outside of every limit, and which setting keeps it from that."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from spoold.host import machine
from spoold.model.findings import Finding, Level

CALM = (6, 14)  # Linux no longer looks for a module for each file that it is to execute and does not know


def examine() -> Iterator[Finding]:
    """Yield what is found."""
    yield _modules()


def _modules() -> Finding:
    """Look whether to execute a file of an unknown format starts modprobe; no filter of system calls can see that."""
    what = "a job that executes what is no program"
    off = machine.sysctl("kernel.modules_disabled") == "1" or not machine.sysctl("kernel.modprobe")
    if off or _version(os.uname().release) >= CALM:
        return Finding(Level.FINE, what, "has the kernel start nothing")
    return Finding(
        Level.WARNING,
        what,
        "has this kernel start modprobe as root each time, outside of the job's limits",
        "use Linux 6.14 or later; or, when all modules are loaded that this host needs until its next boot, "
        "sysctl kernel.modules_disabled=1",
    )


def _version(release: str) -> tuple[int, int]:
    """Return a kernel's version in numbers, (0, 0) where it does not begin with any."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)
