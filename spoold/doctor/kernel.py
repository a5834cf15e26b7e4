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
    what = Subject("a job that executes what is no program")
    off = machine.sysctl("kernel.modules_disabled") == "1" or not machine.sysctl("kernel.modprobe")
    if off or _version(os.uname().release) >= CALM:
        return what.fine("has the kernel start nothing")
    return what.warning(
        "has this kernel start modprobe as root each time, outside of the job's limits",
        "use Linux 6.14 or later; or, when all modules are loaded that this host needs until its next boot, "
        "sysctl kernel.modules_disabled=1",
    )


def _watches() -> Finding:
    """Check how many descriptors a job can watch by epoll(7): all of them may be of the same timer."""
    what = Subject("a timer that a job has watched many times")
    most = machine.sysctl(WATCHES)
    if most.isdecimal() and int(most) <= FEW:
        return what.fine(f"takes little time of others: {WATCHES} is {most}")
    return what.note(
        "takes time of interrupts, which count as CPU time of whichever job runs just then: "
        f"{WATCHES} is {most or 'not told'}",
        f"sysctl {WATCHES}={FEW}, and the same in a file of /etc/sysctl.d, where no other service of this host watches "
        "more by one user",
    )


def _version(release: str) -> tuple[int, int]:
    """Return a kernel's version in numbers, (0, 0) where ``release`` does not begin with two."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)
