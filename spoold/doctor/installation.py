"""The doctor's check of an installation: the daemons' accounts, who else is in their group, and the units.

A desk or a demo, where one user runs all daemons, has none of these, and needs none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from spoold.config import Settings
from spoold.host import accounts, proc, units
from spoold.model.findings import Finding, Subject
from spoold.spool import layout

TARGET = "spoold.target"
ACCOUNTS = Subject("accounts of the daemons")
OWNERS = Subject("owners of the spool's directories")


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield the findings."""
    if not layout.is_shared(settings.spool.path):
        yield ACCOUNTS.note("one user runs all daemons on this spool")
        return
    missing = accounts.missing(layout.GROUP, layout.USERS.values())
    if missing:
        remedy = "systemd-sysusers spoold.conf, then spoolctl init"
        yield ACCOUNTS.refused(f"missing on this host: {', '.join(missing)}", remedy)
        return
    yield from _memberships()
    try:
        yield _owners(settings)
    except PermissionError:
        yield closed(OWNERS)
    if os.path.isdir(units.SYSTEMD):
        yield _units()


def closed(what: Subject) -> Finding:
    """Return a finding that another user has to look: root, or where a file server squashes root the daemons' user."""
    if os.geteuid() != 0:
        return what.unknown("closed to this user", "run the doctor as root")
    remedy = "export the spool to this host with no_root_squash, or run the doctor as the daemons' user"
    return what.unknown("closed to root: the file server treats root as nobody", remedy)


def _memberships() -> Iterator[Finding]:
    users = set(layout.USERS.values())
    outside = sorted(user for user in users if accounts.gid_of(layout.GROUP) not in accounts.groups_of(user))
    if outside:
        remedy = "; ".join(f"usermod --append --groups {layout.GROUP} {user}" for user in outside)
        yield ACCOUNTS.refused(f"not in the group {layout.GROUP}: {', '.join(outside)}", remedy)
    else:
        yield ACCOUNTS.fine(f"are there, and in the group {layout.GROUP}")
    if others := sorted(accounts.members(layout.GROUP) - users):
        remedy = "; ".join(f"gpasswd --delete {user} {layout.GROUP}" for user in others)
        what = Subject(f"group {layout.GROUP}")
        yield what.warning(f"{', '.join(others)} can read every submission", remedy)


def _owners(settings: Settings) -> Finding:
    """Compare the owners of the spool's directories with the table."""
    root = settings.spool.path
    found = accounts.find(layout.GROUP, layout.USERS.values())
    wrong = [
        each.path
        for each in layout.DIRECTORIES
        if found and not accounts.owned_by(os.path.join(root, each.path), found.uids.get(each.owner, 0), found.gid)
    ]
    if wrong:
        return OWNERS.refused(f"are not as they should be: {', '.join(wrong)}", "spoolctl init, as root")
    return OWNERS.fine("are as they should be")


def _units() -> Finding:
    what = Subject(TARGET)
    said = proc.run(["systemctl", "is-enabled", TARGET], units.QUICK).stdout.data.decode(errors="replace").strip()
    if said == "enabled":
        return what.fine("is started at boot")
    if not said:
        remedy = "install the units, see contrib/docs/operator.md"
        return what.note("there is no such unit: nothing starts the daemons at boot", remedy)
    return what.note(f"is {said}: not started at boot", f"systemctl enable --now {TARGET}")
