"""A job writes to its own directories and devices, and to nothing in /proc; see landlock(7).

The kernel lets everybody raise its own ``/proc/PID/oom_score_adj``, and lower it again down to where whoever has
CAP_SYS_RESOURCE last left it. That is 0 in a container, as for the host's own daemons, and the supervisor has not that
capability. So what keeps the jobs the first to be killed where the host's memory is short is that none may write there.
Nothing else in a job's /proc is worth writing to, and descriptors that are opened again by /proc/PID/fd are not of it.
"""

from __future__ import annotations

import ctypes
import os

from .files import WORK
from .kernel import call, libc

CREATE, ADD, RESTRICT = 444, 445, 446  # the same on all machines
VERSION, PATH_BENEATH = 1, 1
WRITE_FILE, REFER = 1 << 1, 1 << 13
# Without the right to REFER, files would no longer move from one directory to another. It came with this version.
ENOUGH = 2
OWN = (WORK, "/tmp", "/dev", "/dev/mqueue")  # the last once more: mq_open(3) comes to it without a path


def rules() -> int:
    """Return a descriptor for ``confine``, -1 where the kernel cannot do it; made before the job comes."""
    if libc.syscall(CREATE, None, ctypes.c_size_t(0), VERSION) < ENOUGH:
        return -1
    handled = (WRITE_FILE | REFER).to_bytes(8, "little")
    made = call(libc.syscall, CREATE, handled, ctypes.c_size_t(len(handled)), 0)
    for path, allowed in (("/", REFER), *((each, WRITE_FILE | REFER) for each in OWN)):
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = allowed.to_bytes(8, "little") + place.to_bytes(4, "little")
        call(libc.syscall, ADD, made, PATH_BENEATH, rule, 0)
        os.close(place)
    return made


def confine(rules: int) -> None:
    """Have this process, and all that come of it, write nowhere else; it needs no right, but no-new-privileges."""
    if rules >= 0:
        call(libc.syscall, RESTRICT, rules, 0)
