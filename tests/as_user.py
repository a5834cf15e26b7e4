"""Run a daemon over stand-in engines as its own user: ``python -m tests.as_user CONFIG ROLE UID GID CAPABILITIES``.

It does what a unit does with User=, Group= and AmbientCapabilities=, without another program in between. That user may
be unable to read the interpreter's files, so everything that is needed is imported before. $SPOOLD_TEST_SUBUID is the
file of subordinate ranges.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

import prometheus_client  # noqa: F401 - imported before the right to read it is gone, like the ones below

import spoold.actors.health
import spoold.actors.intake  # noqa: F401 - imported before the right to read it is gone
import tests.idle  # noqa: F401 - puts stand-ins for the engines
from spoold import daemon
from spoold.config.file import load
from spoold.host import log, persons
from spoold.model.states import Role

CAPABILITIES = {"CAP_CHOWN": 0, "CAP_DAC_READ_SEARCH": 2, "CAP_FOWNER": 3, "CAP_SETGID": 6, "CAP_SETUID": 7}
PR_SET_NO_NEW_PRIVS, PR_SET_KEEPCAPS, VERSION = 38, 8, 0x20080522


def become(uid: int, gid: int, capabilities: list[str]) -> None:
    """Give up all users, groups and capabilities but these."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    kept = sum(1 << CAPABILITIES[name] for name in capabilities)
    header = struct.pack("Ii", VERSION, 0)
    data = struct.pack("6I", kept, kept, 0, 0, 0, 0)  # effective, permitted, inheritable; each low, then high
    assert libc.capset(header, data) == 0, os.strerror(ctypes.get_errno())


if __name__ == "__main__":
    config, role, user, group, *names = sys.argv[1:]
    settings = load(config)
    persons.SUBUID = os.environ.get("SPOOLD_TEST_SUBUID", persons.SUBUID)
    log.set_up(level="info", journal=False)
    become(int(user), int(group), names)
    os.umask(0o077)  # independent of the umask of the caller
    daemon.serve(settings, [Role(role)])
