"""The doctor's look at an installation: the daemons' accounts, who else is in their group, and the units.

A desk or a demo, where one user runs all daemons, has none of it, and needs none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from spoold.config import Settings
from spoold.host import accounts, proc, units
from spoold.model.findings import Finding, Level
from spoold.spool import layout

ACCOUNTS = "accounts of the daemons"


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield what is found."""
    if not layout.is_shared(settings.spool.path):
        yield Finding(Level.NOTE, ACCOUNTS, "one user runs all daemons on this spool")
        return
    missing = accounts.missing(layout.GROUP, layout.USERS.values())
    if missing:
        remedy = "systemd-sysusers spoold.conf, then spoolctl init"
        yield Finding(Level.REFUSED, ACCOUNTS, f"this host does not have: {', '.join(missing)}", remedy)
        return
    yield from _memberships()
    try:
        yield _owners(settings)
    except PermissionError:
        yield closed("owners of the spool's directories")
    if os.path.isdir(units.SYSTEMD):
        yield _units()


def closed(what: str) -> Finding:
    """Return that somebody else has to look at it: root, or who is not root to a file server."""
    if os.geteuid() != 0:
        return Finding(Level.UNKNOWN, what, "closed to this user", "run the doctor as root")
    remedy = "export it to this host with no_root_squash, or run the doctor as the daemons' user"
    return Finding(Level.UNKNOWN, what, "closed to root, as a file server does that takes root for nobody", remedy)


def _memberships() -> Iterator[Finding]:
    users = set(layout.USERS.values())
    outside = sorted(user for user in users if accounts.gid_of(layout.GROUP) not in accounts.groups_of(user))
    if outside:
        remedy = "; ".join(f"usermod --append --groups {layout.GROUP} {user}" for user in outside)
        yield Finding(Level.REFUSED, ACCOUNTS, f"not in the group {layout.GROUP}: {', '.join(outside)}", remedy)
    else:
        yield Finding(Level.FINE, ACCOUNTS, f"are there, and in the group {layout.GROUP}")
    if others := sorted(accounts.members(layout.GROUP) - users):
        remedy = "; ".join(f"gpasswd --delete {user} {layout.GROUP}" for user in others)
        what = f"group {layout.GROUP}"
        yield Finding(Level.WARNING, what, f"{', '.join(others)} can read every submission", remedy)


def _owners(settings: Settings) -> Finding:
    """Compare the owners of the spool's directories with the table."""
    root, what = settings.spool.path, "owners of the spool's directories"
    found = accounts.find(layout.GROUP, layout.USERS.values())
    wrong = [
        each.path
        for each in layout.DIRECTORIES
        if found and not accounts.owned_by(os.path.join(root, each.path), found.uids.get(each.owner, 0), found.gid)
    ]
    if wrong:
        return Finding(Level.REFUSED, what, f"are not as they should be: {', '.join(wrong)}", "spoolctl init, as root")
    return Finding(Level.FINE, what, "are as they should be")


def _units() -> Finding:
    what = "spoold.target"
    said = proc.run(["systemctl", "is-enabled", what], units.QUICK).stdout.data.decode(errors="replace").strip()
    if said == "enabled":
        return Finding(Level.FINE, what, "is started at boot")
    if not said:
        remedy = "install the units, see contrib/docs/operator.md"
        return Finding(Level.NOTE, what, "there is no such unit: nothing starts the daemons at boot", remedy)
    return Finding(Level.NOTE, what, f"is {said}: not started at boot", f"systemctl enable --now {what}")
