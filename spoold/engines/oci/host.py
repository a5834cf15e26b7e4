"""The means of this host for containers: a runtime, control groups, and users where this process is not root."""

from __future__ import annotations

import os
import re
import shutil

from spoold.config import Settings
from spoold.engines.oci.walls import SIZE, Ids
from spoold.host import ownership, packages, proc, userns
from spoold.host.accounts import user_name
from spoold.host.groups import Groups
from spoold.model.errors import OperatorError, SpooldError

RUNTIMES = ("crun", "runc")  # the quickest first
REMEDY = "It makes containers, so only root or the executor's user may be able to change it: mend owner and mode"
VERSION = re.compile(r"(?:runc|crun) version ([^\s]+)")


def runtimes(settings: Settings, groups: Groups) -> list[str]:
    """Return the paths of the runtimes to try, the quickest first; raises :class:`OperatorError` for none."""
    chosen = settings.oci.runtime
    names = [chosen] if chosen else [name for name in RUNTIMES if name != "crun" or groups.same]
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    found = [ownership.settled(where, REMEDY) for name in names if (where := shutil.which(name, path=path))]
    if not found:
        what = f"there is no oci.runtime {chosen!a}" if chosen else "there is neither crun nor runc"
        raise OperatorError(f"{what}: install crun or runc, or name the path of one in oci.runtime")
    return found


def version(program: str) -> tuple[str, str]:
    """Return the name that a runtime calls itself, and its version; "" where it does not say."""
    try:
        said = proc.run([program, "--version"], packages.BOUNDS).stdout.data.decode(errors="replace")
    except SpooldError:
        return os.path.basename(program), ""
    found = VERSION.match(said)
    return (said.split()[0], found[1]) if found else (os.path.basename(program), "")


def ids() -> Ids | None:
    """Return the ids of containers' users, None for root; raises :class:`OperatorError` where we have no such ids."""
    if os.geteuid() == 0:
        return None
    name = user_name(os.geteuid())
    if shutil.which("newuidmap") is None:
        raise OperatorError("newuidmap is missing, which gives users to an ordinary user's containers: install uidmap")
    ranges = [userns.subordinate_ids(f"/etc/sub{kind}id") for kind in ("u", "g")]
    if any(len(found) < SIZE for found in ranges):
        raise OperatorError(
            f"user {name} needs {SIZE} subordinate ids for the users of containers. Give it a range that nobody else "
            f"has: `usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST {name}`"
        )
    return Ids(os.geteuid(), os.getegid(), ranges[0].start, ranges[1].start)
