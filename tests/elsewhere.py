"""Run daemons as on another host: ``python -m tests.elsewhere CONFIG ROLE,... LEVEL SKEW``, over stand-in engines.

On some remote file systems, locks on files hold on one host only. So locks keep nobody out here. The host's clock is
off by SKEW seconds, but the file system's clock is right. The caller sets the host's name (unshare).
"""

from __future__ import annotations

import fcntl
import sys
import time

from spoold import daemon
from spoold.config.file import load
from spoold.host import log
from spoold.model.states import Role
from tests import idle  # noqa: F401 - puts the stand-ins into daemon.ROLES

REAL_TIME = time.time


def _no_lock(*_: object) -> None:
    """Stand for flock(2), as if nobody else had the file open."""


if __name__ == "__main__":
    fcntl.flock = _no_lock
    skew = float(sys.argv[4])
    time.time = lambda: REAL_TIME() + skew
    log.set_up(level=sys.argv[3], journal=False)
    daemon.serve(load(sys.argv[1]), [Role(name) for name in sys.argv[2].split(",")])
