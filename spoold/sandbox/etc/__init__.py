"""What a C library reads in the /etc of a sandbox: users and groups, and the names of hosts and services.

The files lie beside this module, except the lists of users and groups, which are made here. There is one host name, and
it leads to the loopback interface, as ``localhost`` does. There is no network, so no other name is looked up anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import resources

from spoold.host import ownership
from spoold.sandbox.facts import HOLDERS, JOB_UID

NAMES = ("host.conf", "hostname", "hosts", "networks", "nsswitch.conf", "protocols", "resolv.conf", "services")
REMEDY = "The engine mounts it into sandboxes, so only root may be able to change it: mend owner and mode"
NOBODY = 65534  # in a cell, the owner of files that belong to nobody there


def files() -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each file."""
    for name in NAMES:
        yield name, (resources.files(__package__) / name).read_bytes()
    ids = (JOB_UID, *HOLDERS)
    users = "".join(f"job:x:{uid}:{uid}::/job:/bin/sh\n" for uid in ids)
    yield "passwd", f"root:x:0:0::/:/bin/sh\n{users}nobody:x:{NOBODY}:{NOBODY}::/:/bin/sh\n".encode()
    groups = "".join(f"job:x:{gid}:\n" for gid in ids)
    yield "group", f"root:x:0:\n{groups}nogroup:x:{NOBODY}:\n".encode()


def settled(name: str) -> str:
    """Return the real path of one of the files beside this module.

    Raises :class:`OperatorError` where anybody but root and the owner of this package can put another file in its
    place.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    return ownership.settled(os.path.join(here, name), REMEDY, also={os.stat(__file__).st_uid})
