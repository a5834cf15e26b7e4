"""A user namespace of ours: in it we are root, and there are further users, who own nothing on the host.

Theory of operation: a child makes the namespace and waits. We write its maps, keep the namespace by a descriptor, and
let the child end. A program that we start can enter the namespace by that descriptor. It then has all rights over what
is in there: over our own files, which are root's there, and over the files that the further users make. See
user_namespaces(7).

The kernel counts some things by user, such as inotify instances. For the owner of a namespace it also counts what all
users in there have together (the limits in /proc/sys/user, see namespaces(7)). So each build has a namespace of its
own, with a share.

A process that maps other users than itself needs the right to become them. Root has this right. A unit gives it to a
daemon with AmbientCapabilities=CAP_SETUID CAP_SETGID: :func:`at_start` uses it in the daemon's first milliseconds and
drops it for good. An ordinary user has it for the subordinate ids that /etc/subuid and /etc/subgid grant, by way of
newuidmap(1).
"""

from __future__ import annotations

import contextlib
import ctypes
import grp
import os
import pwd
import resource
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from spoold.host import proc
from spoold.host.launch import Rlimits, find
from spoold.model.errors import OperatorError

BUILD_GROUP = "spoold-build"  # its members run builds under the unit; sysusers.d makes it
CAP_SETGID, CAP_SETUID = 6, 7
PR_SET_DUMPABLE, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 4, 47, 4
CAPABILITY_VERSION = 0x20080522
SHARES = 8  # builds that may run at once without taking from each other
PROGRAM_TIMEOUT = 60.0  # seconds for the small programs that make a namespace


class Users(NamedTuple):
    """A group, and the users in it: their names and uids."""

    group: str
    gid: int
    uids: dict[str, int]


class UserNamespace:
    """A namespace that exists for as long as this object does, with the users that are in it."""

    def __init__(self, users: Users, descriptor: int) -> None:
        self.users = users
        self._descriptor = descriptor
        self._nsenter = find("nsenter")

    @property
    def path(self) -> str:
        """Return the path by which programs that we start enter it, with nsenter(1)."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def entering(self, argv: Sequence[str]) -> list[str]:
        """Return the command that becomes ``argv`` inside, as root of the namespace."""
        return [self._nsenter, f"--user={self.path}", "--setuid", "0", "--setgid", "0", "--", *argv]


def group_members(group: str) -> Users | None:
    """Return a group and its members, None where there is no such group or it has no members."""
    try:
        found = grp.getgrnam(group)
    except KeyError:
        return None
    uids = {}
    for name in found.gr_mem:
        with contextlib.suppress(KeyError):
            uids[name] = pwd.getpwnam(name).pw_uid
    return Users(group, found.gr_gid, uids) if uids else None


def subordinate(most: int) -> Users | None:
    """Return up to ``most`` users of our own subordinate range, None where we have none.

    They are the last ones of the range: our containers, if there are any, take ids from its beginning.
    """
    uids, gids = subordinate_ids("/etc/subuid"), subordinate_ids("/etc/subgid")
    if not uids or not gids:
        return None
    last = uids[-most:]
    return Users(BUILD_GROUP, gids[-1], {f"{BUILD_GROUP}{number + 1}": uid for number, uid in enumerate(last)})


def subordinate_ids(file: str) -> range:
    """Return our first range of subordinate ids in ``file``; see subuid(5)."""
    uid = os.geteuid()
    with contextlib.suppress(OSError, KeyError):
        ours = {str(uid), pwd.getpwuid(uid).pw_name}
        for line in Path(file).read_text().splitlines():
            name, _, rest = line.partition(":")
            first, _, count = rest.partition(":")
            if name in ours and first.isdigit() and count.strip().isdigit():
                return range(int(first), int(first) + int(count))
    return range(0)


def make(users: Users, *others: int) -> UserNamespace:
    """Make a namespace with ``users`` and with ``others``, whose files we handle: ids of users and of their groups.

    Raises :class:`OperatorError` where we may not map them, or where no namespace can be made.
    """
    command = [find("unshare"), "--user", "--", find("sh"), "-c", "echo; read -r _"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={})
    assert child.stdin is not None  # noqa: S101 - for mypy: it was asked for, as were the others
    assert child.stdout is not None  # noqa: S101
    assert child.stderr is not None  # noqa: S101
    with child.stdin, child.stdout, child.stderr:
        try:
            if child.stdout.readline() != b"\n":
                said = child.stderr.read().decode(errors="replace").strip()
                raise OperatorError(
                    f"no user namespace can be made for builds ({said}): see sysctl "
                    "user.max_user_namespaces, kernel.unprivileged_userns_clone, "
                    "kernel.apparmor_restrict_unprivileged_userns"
                )
            _map(child.pid, "uid", [(0, os.geteuid()), *((uid, uid) for uid in (*users.uids.values(), *others))])
            _map(child.pid, "gid", [(0, os.getegid()), *((gid, gid) for gid in (users.gid, *others))])
            return UserNamespace(users, os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC))
        finally:
            child.stdin.close()
            child.wait(PROGRAM_TIMEOUT)


def _map(pid: int, kind: str, pairs: list[tuple[int, int]]) -> None:
    """Write one of the maps of a namespace: pairs of an id inside and one outside."""
    lines = "".join(f"{inside} {outside} 1\n" for inside, outside in pairs)
    if _may_map():
        try:
            Path(f"/proc/{pid}/{kind}_map").write_text(lines)
        except OSError as error:
            raise OperatorError(f"the users of builds cannot be mapped into a user namespace: {error}") from error
        return
    done = subprocess.run(
        [find(f"new{kind}map"), str(pid), *lines.split()], capture_output=True, timeout=PROGRAM_TIMEOUT, check=False
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise OperatorError(f"the users of builds cannot be mapped into a user namespace: {said}; see newuidmap(1)")


def _may_map() -> bool:
    return _effective() & (1 << CAP_SETUID | 1 << CAP_SETGID) == (1 << CAP_SETUID | 1 << CAP_SETGID)


def _effective() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


class Namespaces:
    """A namespace with all of ``users``, and one for each user alone, with a share of what the kernel counts."""

    def __init__(self, users: Users, *others: int) -> None:
        self.users = users
        self.all = make(users, *others)
        self._alone: dict[str, UserNamespace] = {}
        self._limited: set[str] = set()

    def alone(self, name: str) -> UserNamespace:
        """Return the namespace of one user, whom nobody but the caller uses now."""
        found = self._made(name)
        if name not in self._limited:
            _limit(found)
            self._limited.add(name)
        return found

    def make_all(self) -> None:
        """Make the namespaces of all users now, for a process that will not be able to make them later."""
        for name in self.users.uids:
            self._made(name)

    def _made(self, name: str) -> UserNamespace:
        if name not in self._alone:
            self._alone[name] = make(self.users._replace(uids={name: self.users.uids[name]}))
        return self._alone[name]


def _limit(namespace: UserNamespace) -> None:
    """Leave a namespace a share of what the kernel counts by user; half of all stays with the host's own users."""
    host = Path("/proc/sys/user")
    shares = {file.name: int(file.read_text()) // (2 * SHARES) for file in host.glob("max_*")}
    # In a user namespace of its own, a build could mount file systems. It could write to them where we do not look, and
    # have memory that no control group counts.
    shares["max_user_namespaces"] = 0
    lines = "".join(f"echo {share} > /proc/sys/user/{name}\n" for name, share in shares.items())
    # In a pid namespace, which has a /proc of its own: the host's may be closed to writing.
    bounds = proc.Bounds(wall=PROGRAM_TIMEOUT)
    done = proc.run([find("sh"), "-c", lines], bounds, entering=namespace.entering, pid_namespace=True)
    if not done.ok:
        said = done.stderr.data.decode(errors="replace").strip()
        raise OperatorError(f"the limits of kernel objects per user cannot be set for builds: {said or done}")


def share_of(rlimits: Rlimits) -> Rlimits:
    """Return ``rlimits`` with a share of what the kernel counts for the owner of all namespaces together.

    See setrlimit(2). Without this a build could hold all of them, and leave nothing to the other builds.
    """
    return msgspec.structs.replace(
        rlimits,
        message_queues=_share(resource.RLIMIT_MSGQUEUE),
        pending_signals=_share(resource.RLIMIT_SIGPENDING),
        locked_memory=_share(resource.RLIMIT_MEMLOCK),
    )


def _share(limit: int) -> int | None:
    soft, _ = resource.getrlimit(limit)
    return None if soft == resource.RLIM_INFINITY else soft // SHARES


_made_at_start: Namespaces | None = None


def made_at_start() -> Namespaces | None:
    """Return the namespaces that :func:`at_start` made, if it did."""
    return _made_at_start


def at_start() -> None:
    """Make the namespaces of a daemon that was given the two capabilities for that, and drop them for good.

    Call it before there is a second thread, since each thread has capabilities of its own.
    """
    global _made_at_start  # noqa: PLW0603 - what a process is given at its start belongs to the process
    if os.geteuid() == 0 or not _may_map():
        return
    try:
        users = group_members(BUILD_GROUP)
        if users is not None:
            _made_at_start = Namespaces(users)
            _made_at_start.make_all()
    finally:
        _drop_capabilities()


def _drop_capabilities() -> None:
    """Give up every capability; with NoNewPrivileges=, as in our units, none ever comes back."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", CAPABILITY_VERSION, 0)
    failed = libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) or libc.capset(header, bytes(24))
    if failed:
        raise OperatorError(f"the daemon's capabilities cannot be dropped: {os.strerror(ctypes.get_errno())}")
    # Programs that we start open our descriptor in /proc. The kernel may have closed that to them.
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
