"""The doctor's check of what this kernel does for a job outside all limits, and which settings keep it from that."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from spoold.host import machine
from spoold.model.findings import Finding, Subject

CALM = (6, 14)  # since this version Linux looks for no module when it is to execute a file of an unknown format
WATCHES = "fs.epoll.max_user_watches"
FEW = 16384  # watches, which take about a millisecond; 64 times the descriptors that a job's process has by default


def examine() -> Iterator[Finding]:
    """Yield the findings."""
    yield _modules()
    yield _watches()


def _modules() -> Finding:
    """Check whether executing a file of an unknown format starts modprobe; no filter of system calls can see that."""
    what = Subject("a job that executes a file of an unknown format")
    off = machine.sysctl("kernel.modules_disabled") == "1" or not machine.sysctl("kernel.modprobe")
    if off or _version(os.uname().release) >= CALM:
        return what.fine("does not make the kernel start modprobe")
    return what.warning(
        "makes this kernel start modprobe as root each time, outside the job's limits",
        "use Linux 6.14 or later. Or, once every module that this host needs until its next boot is loaded: "
        "sysctl kernel.modules_disabled=1",
    )


def _watches() -> Finding:
    """Check how many descriptors a job can watch by epoll(7): all of them may be of the same timer."""
    what = Subject("a timer that a job has watched many times")
    most = machine.sysctl(WATCHES)
    if most.isdecimal() and int(most) <= FEW:
        return what.fine(f"takes little time from other jobs: {WATCHES} is {most}")
    return what.note(
        "takes time in interrupts, which counts as CPU time of the job that runs at that moment: "
        f"{WATCHES} is {most or 'unknown'}",
        f"sysctl {WATCHES}={FEW}, and the same line in a file of /etc/sysctl.d, if no other service of this host needs "
        "more watches for one user",
    )


def _version(release: str) -> tuple[int, int]:
    """Return a kernel's version in numbers, (0, 0) where ``release`` does not begin with two."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)
