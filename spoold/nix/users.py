"""The users that run builders: they own nothing in the store, and each runs one build at a time.

Theory of operation: a builder gets the inputs of its build as they lie in the store. A builder that ran as the store's
owner could make them writable and change them for everybody. So all Nix programs that touch the store run as root of a
user namespace (:mod:`spoold.host.userns`). Root of that namespace is the owner of the store, and builders are further
users in it.

These users come from different places, depending on the user that runs spoold:

* Under the package's unit they are the members of the group ``spoold-build``, which the daemon maps when it starts.
* Under root they are the members of Nix's own group, ``nixbld``, or of the group that the settings name.
* Under an ordinary user they are the end of that user's range of subordinate ids.

Nix ends a build by killing all processes of its user. So a user serves one build at a time on this host, whatever store
the build is for. A lock file for each user, in one directory of the host, ensures this. If the host has a Nix of its
own, it is the directory where that Nix keeps such locks. The Nix of a build sees a group with one member, its user.

With ``nix.build_users = ""`` builds have no users of their own. Builders then run as the user that runs spoold. That is
for people who run only their own submissions.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from threading import Event

from spoold.config import NixSettings
from spoold.host import userns
from spoold.host.log import Log
from spoold.host.userns import Namespaces, Users
from spoold.model.errors import OperatorError, TemporaryError

log = Log("nix")
AUTO = "auto"
NIXBLD = "nixbld"
MOST = 16  # users that are used, of a larger group or range
POLL = 0.1  # seconds between looks for a user that is free
HOSTS_NIX = "/nix/var/nix/userpool"  # where a Nix of the host locks the users that it shares with spoold
OF_THE_UNIT = "/run/spoold-build"  # the unit's RuntimeDirectory
OF_ROOT = "/run/spoold-nixbld"


class BuildUser:
    """One user that is held for one build, and the namespace to build in."""

    def __init__(self, namespaces: Namespaces, name: str) -> None:
        users = namespaces.users
        self.name, self.uid, self.group = name, users.uids[name], users.group
        self.namespace = namespaces.alone(name)
        self._gid = users.gid

    def files(self, directory: Path) -> list[tuple[str, str]]:
        """Write passwd and group into ``directory``. Return each file with the path where it is to be shown."""
        texts = {
            "passwd": f"root:x:0:0::/:/bin/sh\n{self.name}:x:{self.uid}:{self._gid}::/var/empty:/bin/sh\n",
            "group": f"root:x:0:\n{self.group}:x:{self._gid}:{self.name}\n",
        }
        for name, text in texts.items():
            (directory / name).write_text(text)
        return [(str(directory / name), f"/etc/{name}") for name in texts]


class BuildUsers:
    """The users of builds, and the namespace that all of them are in."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self.namespace = namespaces.all
        self.users = namespaces.users

    @contextlib.contextmanager
    def one(self, cancel: Event) -> Iterator[BuildUser]:
        """Hold a user that no other build has. Wait for one while all are busy.

        Raises :class:`TemporaryError` when cancelled while it waits.
        """
        directory = _lock_directory(self.users)
        told = False
        while True:
            for name in self.users.uids:
                with contextlib.ExitStack() as held:
                    if _locked(directory / str(self.users.uids[name]), held):
                        yield BuildUser(self._namespaces, name)
                        return
            if not told:
                log.warning("all users of builds are busy; a build waits for one", group=self.users.group)
                told = True
            if cancel.wait(POLL):
                raise TemporaryError(f"the build was cancelled while all users of {self.users.group} were busy")


def find(settings: NixSettings) -> BuildUsers | None:
    """Return the users that run builders, or None where the settings say that builders run as this process's user.

    Raises :class:`OperatorError` where no users can be had.
    """
    return _found(settings.build_users, os.geteuid(), settings.jail_user) if settings.build_users else None


@functools.cache  # one namespace serves all stores of this process
def _found(wish: str, uid: int, jail_user: int) -> BuildUsers:
    made = userns.made_at_start()
    if made is not None:
        return BuildUsers(made)
    if uid == 0:
        # Evaluations of root belong to the jail's user, so that user is mapped too.
        return BuildUsers(Namespaces(_first(_members(NIXBLD if wish == AUTO else wish)), jail_user))
    users = userns.subordinate(MOST) if wish == AUTO else None
    if users is None:
        raise OperatorError(
            "builds need users of their own, and this user has none to give them. Run the builder by its unit "
            "(systemctl start spoold-builder; systemd-sysusers makes its group spoold-build), or run it as root, or "
            "give this user subordinate ids, as root:\n"
            f"  usermod --add-subuids 1000000-1065535 --add-subgids 1000000-1065535 $(id -nu {uid})\n"
            "and install newuidmap (apt-get install uidmap). If you run only your own submissions, you need no such "
            'users: set nix.build_users = ""'
        )
    return BuildUsers(Namespaces(users))


def _members(group: str) -> Users:
    users = userns.group_members(group)
    if users is None:
        raise OperatorError(
            f"builds need users of their own, and there is no group {group} with members on this host. Make it with\n"
            f"  {how_to_make(group)}\n"
            'If you run only your own submissions, you need no such users: set nix.build_users = ""'
        )
    if group == userns.BUILD_GROUP:
        raise OperatorError(f"the group {group} belongs to the unit of spoold: name another group in nix.build_users")
    return users


def how_to_make(group: str) -> str:
    """Return the commands that make a group of build users."""
    return (
        f"groupadd --system {group}; for n in $(seq {MOST}); do useradd --system --no-create-home --shell "
        f"/usr/sbin/nologin --home-dir /var/empty --no-user-group --gid {group} --groups {group} {group}$n; done"
    )


def _first(users: Users) -> Users:
    return users._replace(uids=dict(list(users.uids.items())[:MOST]))


def _lock_directory(users: Users) -> Path:
    """Return the directory of locks, and make it if need be. All programs that use these users on this host use it."""
    if os.geteuid() == 0:
        path = Path(HOSTS_NIX if os.access(HOSTS_NIX, os.W_OK) else OF_ROOT)
    elif users.group == userns.BUILD_GROUP and _ours(Path(OF_THE_UNIT)):
        path = Path(OF_THE_UNIT)
    else:
        path = Path(f"/tmp/spoold-build-{os.geteuid()}")  # noqa: S108 - the same for any TMPDIR, and checked below
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if not _ours(path):
        raise OperatorError(f"{path} has to be a directory of this user's, for locks: remove the present one")
    return path


def _ours(path: Path) -> bool:
    with contextlib.suppress(OSError):
        found = path.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return False


def _locked(file: Path, held: contextlib.ExitStack) -> bool:
    """Lock a file until ``held`` is closed, by flock(2) as Nix does. Return False where somebody else has the lock."""
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    held.callback(os.close, fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    held.callback(fcntl.flock, fd, fcntl.LOCK_UN)  # unlocked explicitly: see _open in nix/lock
    return True
