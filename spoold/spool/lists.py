"""Tests whether access control lists work on this spool as responses need them. Daemons, ``init`` and ``doctor`` ask.

Spec: spool-layout.md, "Directories". A file system may refuse a list, which each process can see. It may also keep a
list and go by something else, as some file servers do. Only a trial as several users tells that, and it takes root.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator

from spoold.config import Settings
from spoold.host import acl, fsops, proc, units
from spoold.host.log import Log
from spoold.model.errors import OperatorError
from spoold.model.findings import Finding, Level
from spoold.model.states import State
from spoold.spool import layout, trial

log = Log("spool")
STRANGER = 64_990  # a uid that no account has. The next two are used as well
WHAT = "responses that only their owners read"
SET = 'set answers = "owner" in the table [spool] of the settings, see "Where there are no access control lists" in '
SET += "contrib/docs/operator.md"
LOST = "their owners can change and remove them"


def keeps_lists(root: str) -> bool:
    """Try whether a file in the spool can have a list at all."""
    path = os.path.join(root, "tmp", f"doctor-{os.getpid()}")
    wanted = acl.readers({STRANGER}, own_group=False)
    try:
        fsops.write_private(path, b"", access=wanted, sync=False)
        return acl.of(path) == wanted
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        return error.errno == errno.EINVAL  # EINVAL: the file system keeps lists, and this user namespace lacks the uid
    finally:
        fsops.remove(path)


def require(settings: Settings) -> None:
    """Raise :class:`OperatorError` where the daemons of a shared spool could let no owner read.

    On a spool of one user this is only logged: the user who runs all daemons can read their own responses in any case.
    """
    root = settings.spool.path
    try:
        if settings.spool.answers != "acl" or keeps_lists(root):
            return
    except OSError as error:  # the disk is full or read-only. The daemon waits for it, and learns nothing about lists
        log.warning("could not test whether responses can have access control lists", spool=root, error=error)
        return
    why = f"no access control list can be set on this file system, so owners could not read their responses: {SET}"
    if layout.is_shared(root):
        raise OperatorError(f"{root}: {why}")
    log.warning("other users cannot read their responses", spool=root, why=why)


def wrong(root: str) -> str | None:
    """Try lists as several users. Return what is wrong, "" where all is well, None where this process cannot try it."""
    if not keeps_lists(root):
        return "no access control list can be set"
    if os.geteuid() != 0:
        return None
    shared = layout.is_shared(root)
    writer = os.stat(os.path.join(root, "incoming" if shared else "tmp"))
    path = os.path.join(State.DONE, f"doctor-{os.getpid()}")
    access = acl.readers({STRANGER}, own_group=shared).hex()
    group = str(writer.st_gid if shared else -1)
    command = [sys.executable, "-I", "-S", trial.__file__, path, access, str(writer.st_uid), group, str(STRANGER)]
    ended = proc.run(command, units.QUICK, cwd=root)
    if ended.exit_code == trial.UNABLE:
        return None
    said = ended.stdout.data.decode(errors="replace")
    return said if ended.ok else said or "the trial failed: " + ended.stderr.data.decode(errors="replace")[-300:]


def settle(settings: Settings) -> str:
    """Look whether the setting fits the spool that was just made. Return what to tell the operator.

    Raises :class:`OperatorError` where it does not fit, and other users are to use the spool.
    """
    root, found = settings.spool.path, wrong(settings.spool.path)
    if settings.spool.answers == "owner":
        hint = f'access control lists work on {root}: without answers = "owner", owners could read their responses, '
        hint += "but not change them"
        return hint if found == "" else ""
    if not found:
        return ""
    if layout.is_shared(root):
        raise OperatorError(f"{root}: {found}. So {SET}")
    return f"{root}: {found}. Other users cannot read their responses. For them {SET}"


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield the findings about lists on this spool."""
    root = settings.spool.path
    found = wrong(root)
    if settings.spool.answers == "owner":
        if found == "":
            detail = f"{LOST}, though access control lists work here"
            yield Finding(Level.WARNING, WHAT, detail, 'remove answers = "owner"')
        else:
            kept = "`spoolctl status` and archives check them by digests that the daemons keep"
            yield Finding(Level.WARNING, WHAT, f"{LOST}. {kept}", "use a file system with access control lists")
    elif found:
        yield Finding(Level.REFUSED if layout.is_shared(root) else Level.WARNING, WHAT, found, SET)
    elif found is None:
        detail = "access control lists can be set, but only root can test them"
        yield Finding(Level.UNKNOWN, WHAT, detail, "run the doctor as root")
    else:
        yield Finding(Level.FINE, WHAT, "belong to the daemons, and access control lists let their owners read them")
