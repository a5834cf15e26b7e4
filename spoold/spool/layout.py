"""The tables of the spool: directories, states, transitions.

Spec: spool-layout.md, "Directories", "States" and "Transitions". A test reads the tables there, and fails when they
differ from these. ``create`` makes a spool from the first table. A test compares systemd/tmpfiles.d with it as well.

A spool is *shared* if each daemon is a user of its own. Then the daemons have the group of its directories, and the
group may write. Otherwise one user runs all daemons, and the group has the rights of strangers. The directories tell
which of the two it is. So nothing has to be configured, and a process that writes a file into a directory knows which
users to let read it.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from spoold.host import accounts, fsops, strangers
from spoold.host.accounts import Accounts
from spoold.model.errors import OperatorError
from spoold.model.states import Role

GROUP = "spoold"  # the group of all daemons, where each is a user of its own
USERS = {role: f"spoold-{role}" for role in Role}


class Directory(NamedTuple):
    """A directory of the spool: its path below the root, its owner and mode in a shared spool, and what it holds."""

    path: str
    owner: str
    mode: int
    holds: str

    @property
    def alone(self) -> int:
        """Return the mode in a spool of one user: the group has others' rights, and files keep their writer's group."""
        return self.mode & 0o1707 | (self.mode & 0o007) << 3


class StateRow(NamedTuple):
    """A state of a submission: the file that makes the state, and the files that may be there beside it."""

    name: str
    entry: str
    beside: str


class Transition(NamedTuple):
    """A step between two states, the actor that takes it, and the file operation that is the step."""

    source: str
    target: str
    actor: str
    step: str


DIRECTORIES = (
    Directory(".", "root", 0o751, "the root: can be entered, not listed"),
    Directory("incoming", USERS[Role.INTAKE], 0o1733, "the drop box: clients create files here and nothing else"),
    Directory("new", "root", 0o2770, "accepted submissions that nobody works on"),
    Directory("building", "root", 0o2770, "submissions that wait for their dependencies"),
    Directory("running", "root", 0o2770, "submissions that an executor holds"),
    Directory("done", "root", 0o2771, "finished submissions and the responses"),
    Directory("progress", "root", 0o2771, "side files: the response so far, for its owner to read"),
    Directory("ids", "root", 0o2770, "one symbolic link per submission on its way: from the id to its owner's uid"),
    Directory("tmp", "root", 0o2770, "private: everything is written here first"),
    Directory("quarantine", "root", 0o2770, "what could not be read, or killed its workers, with the reason"),
    Directory("builds", "root", 0o2770, "the Build store"),
    Directory("builds/new", "root", 0o2770, "builds that nobody works on"),
    Directory("builds/building", "root", 0o2770, "builds that a builder holds"),
    Directory("builds/done", "root", 0o2770, "finished builds and their results"),
    Directory("builds/tmp", "root", 0o2770, "private: results of builds are written here first"),
    Directory("builds/collect", "root", 0o2770, "orders to collect the dependency cache, and what came of them"),
    Directory("builds/used", "root", 0o2770, "one empty file per build and user; its mtime is when it was last wanted"),
)

STATES = (
    StateRow("dropped", "incoming/<id>.json", ""),
    StateRow("new", "new/<id>@<uid>-<n>.json", "ids/<id>; progress/<id>.json"),
    StateRow("building", "building/<id>@<uid>-<n>.json", "ids/<id>; progress/<id>.json"),
    StateRow(
        "running",
        "running/<id>@<uid>-<n>.json",
        "ids/<id>; progress/<id>.json; tmp/<id>@<uid>-<n>.response.json; tmp/<id>@<uid>-<n>.outputs.tar; "
        "tmp/<id>.cancel",
    ),
    StateRow(
        "committed",
        "done/<id>.json",
        "ids/<id>; progress/<id>.json; tmp/<id>@<uid>-<n>.response.json; tmp/<id>@<uid>-<n>.outputs.tar; "
        "done/<id>.outputs.tar; tmp/<id>.cancel",
    ),
    StateRow("done", "done/<id>.json and done/<id>.response.json", "done/<id>.outputs.tar"),
)

TRANSITIONS = (
    Transition("dropped", "new", "intake", "link tmp/<id>.<random>.accept.json to new/<id>@<uid>-1.json"),
    Transition("dropped", "committed", "intake", "link tmp/<id>.<random>.accept.json to done/<id>.json"),
    Transition("new", "building", "executor", "rename new/<id>@<uid>-<n>.json to building/<id>@<uid>-<n>.json"),
    Transition("new", "running", "executor", "rename new/<id>@<uid>-<n>.json to running/<id>@<uid>-<n>.json"),
    Transition("building", "running", "executor", "rename building/<id>@<uid>-<n>.json to running/<id>@<uid>-<n>.json"),
    Transition("building", "new", "health", "rename building/<id>@<uid>-<n>.json to new/<id>@<uid>-<n+1>.json"),
    Transition("running", "new", "health", "rename running/<id>@<uid>-<n>.json to new/<id>@<uid>-<n+1>.json"),
    Transition("running", "new", "executor", "rename running/<id>@<uid>-<n>.json to new/<id>@<uid>-<m>.json"),
    Transition("running", "running", "health", "rename running/<id>@<uid>-<n>.json to running/<id>@<uid>-<n+1>.json"),
    Transition("new", "running", "intake", "rename new/<id>@<uid>-<n>.json to running/<id>@<uid>-9999.json"),
    Transition("building", "running", "intake", "rename building/<id>@<uid>-<n>.json to running/<id>@<uid>-9999.json"),
    Transition("running", "running", "intake", "rename running/<id>@<uid>-<n>.json to running/<id>@<uid>-9999.json"),
    Transition("running", "committed", "holder", "rename running/<id>@<uid>-<n>.json to done/<id>.json"),
    Transition("committed", "done", "holder", "link tmp/<id>@<uid>-<n>.response.json to done/<id>.response.json"),
    Transition("committed", "done", "another", "rename tmp/<id>@<uid>-<n>.response.json to done/<id>.response.json"),
    Transition("done", "committed", "operator", "remove done/<id>.response.json"),
    Transition("committed", "new", "operator", "rename done/<id>.json to new/<id>@<uid>-1.json"),
)


def is_shared(root: str) -> bool:
    """Tell whether each daemon of a spool is a user of its own."""
    try:
        return bool(os.stat(os.path.join(root, "tmp")).st_mode & stat.S_IWGRP)
    except OSError:
        return False


def create(root: str, owners: Accounts | None = None) -> list[str]:
    """Make the missing parts of a spool, with the modes of the table. Return the paths that were made or mended.

    With ``owners`` it becomes a shared spool of theirs, which only root can do. Otherwise existing directories keep
    their owners. A mode that differs is set back, since a drop box that can be listed leaks names.
    """
    shared = owners is not None or is_shared(root)
    changed = []
    for directory in DIRECTORIES:
        path = os.path.normpath(os.path.join(root, directory.path))
        if not fsops.exists(path):
            os.makedirs(path, exist_ok=True)
            changed.append(path)
        # The daemons can change their directories, and this may be root. So only the root itself may be a link.
        try:
            with strangers.directory_itself(path, follow=directory.path == ".") as itself:
                if _mend(directory, itself, owners, shared=shared):
                    changed.append(path)
        except NotADirectoryError as error:
            what = "a symbolic link" if os.path.islink(path) else "no directory"
            raise OperatorError(f"{path} is {what}: remove it, then make the directory with `spoolctl init`") from error
    return sorted(set(changed))


def _mend(directory: Directory, itself: str, owners: Accounts | None, *, shared: bool) -> bool:
    """Give a directory its owner and mode. Return whether it had another."""
    found, changed = os.stat(itself), False
    if owners is not None:
        uid = owners.uids.get(directory.owner, 0)
        if (found.st_uid, found.st_gid) != (uid, owners.gid):
            os.chown(itself, uid, owners.gid)
            changed = True
    wanted = directory.mode if shared else directory.alone
    if stat.S_IMODE(os.stat(itself).st_mode) != wanted:
        os.chmod(itself, wanted)
        changed = True
    return changed


def owners_for(root: str) -> Accounts | None:
    """Return the users that are to share the spool. None where one user runs it, or where the caller may not say so.

    Root makes a shared spool on a host that has the users. A spool that another user has made stays theirs.
    """
    if os.geteuid() != 0:
        return None
    try:
        if os.stat(root).st_uid != 0:
            return None
    except FileNotFoundError:
        pass
    return accounts.find(GROUP, USERS.values())


def check(root: str) -> None:
    """Raise :class:`OperatorError` unless ``root`` holds a spool that this user may work on."""
    for directory in DIRECTORIES:
        path = os.path.normpath(os.path.join(root, directory.path))
        try:
            if stat.S_ISDIR(os.stat(path).st_mode):
                continue
        except PermissionError as error:
            reason = f"{path} is closed to this user: the daemons' users, root, and members of the group may use it"
            raise OperatorError(reason) from error
        except (FileNotFoundError, NotADirectoryError):
            pass
        raise OperatorError(f"{path} is missing: make the spool with `spoolctl init --spool {root}`")
