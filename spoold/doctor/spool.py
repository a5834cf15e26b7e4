"""The doctor's check of the spool: its directories and file system, its clock, and who works on it."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator

from spoold.config import Settings
from spoold.doctor import installation, protection
from spoold.doctor.stores import SKEW
from spoold.host import fsops, machine, proc, units
from spoold.host.clock import Clock
from spoold.model.findings import Finding, Subject
from spoold.model.ids import Kept
from spoold.model.states import ALWAYS, Kind, Role
from spoold.spool import layout, lists
from spoold.upkeep.presence import elsewhere

LEAST_BYTES, LEAST_SHARE, LEAST_INODES = 1 << 30, 0.05, 10_000
SINGLE = tuple(role for role in Role if role is not Role.EXECUTOR)  # a spool has one of each
NOBODY = 65534
INTAKE = "spoold-intake.service"
READ = """
import os, sys
os.open(sys.argv[1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
"""
GIVE = f"""
import os, sys
made = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
os.fchown(made, {NOBODY}, {NOBODY})
"""
RIGHTS = "-all,+dac_read_search"  # of intake's unit
GIVING = ",+chown"  # the right that its drop-in adds where answers are given away


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield the findings."""
    root = settings.spool.path
    try:
        missing = [each.path for each in layout.DIRECTORIES if not _is_directory(os.path.join(root, each.path))]
    except PermissionError:
        yield installation.closed(Subject(f"spool {root}"))
        return
    if missing:
        yield Subject(f"spool {root}").refused(f"missing: {', '.join(missing)}", "spoolctl init")
        return
    yield from _directories(root)
    yield from _mount(settings)
    yield from protection.examine(root)
    yield _room(root, Subject("the spool's disk"))
    if os.path.isdir(settings.nix.state):
        yield _room(settings.nix.state, Subject("the disk of nix.state"))
    if os.access(os.path.join(root, "tmp"), os.W_OK):
        yield _renames(root)
        yield _owners(settings)
        yield from lists.examine(settings)
        yield _clock(root)
        yield from _roles(settings)
        yield _leases(settings)
    else:
        yield installation.closed(Subject("state of the spool"))


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _directories(root: str) -> Iterator[Finding]:
    what = Subject(f"spool {root}")
    found = {each: os.stat(os.path.join(root, each.path)) for each in layout.DIRECTORIES}
    if len({status.st_dev for status in found.values()}) > 1:
        yield what.refused("its directories are on several file systems", "put the whole spool on one")
    owners, shared = {status.st_uid for status in found.values()}, layout.is_shared(root)
    if len(owners) > 1 and not shared:
        yield what.warning(f"its directories belong to several users: {sorted(owners)}", "chown them")
    modes = {each: each.mode if shared else each.alone for each in found}
    wrong = [each.path for each, status in found.items() if stat.S_IMODE(status.st_mode) != modes[each]]
    if wrong:
        yield what.warning(f"modes are not as they should be: {', '.join(wrong)}", "spoolctl init")
    else:
        yield what.fine("directories and modes are as they should be")


def _mount(settings: Settings) -> Iterator[Finding]:
    mount = machine.mount_of(settings.spool.path)
    what = Subject(f"file system of the spool: {mount.kind}")
    if mount.remote and not settings.spool.remote:
        yield what.warning(
            "other hosts may write to it, and inotify does not see their writes: submissions wait for the next scan",
            "set spool.remote = true",
        )
    elif settings.spool.remote and not mount.remote:
        yield what.note("is local, and spool.remote makes the daemons poll it", "set spool.remote = false")
    else:
        yield what.fine("remote, and polled" if mount.remote else "local, and watched")


def _room(path: str, what: Subject) -> Finding:
    room = machine.room(path)
    inodes = "no bound on files" if room.inodes is None else f"{room.inodes} files"
    detail = f"{room.bytes / (1 << 30):.1f} GiB ({room.share:.0%}) and {inodes} free"
    short = room.bytes < LEAST_BYTES or room.share < LEAST_SHARE
    if short or (room.inodes is not None and room.inodes < LEAST_INODES):
        return what.warning(detail, "make room: `spoolctl gc`, and remove old files from done/")
    return what.fine(detail)


def _renames(root: str) -> Finding:
    """Try the operations that every transition is made of."""
    what = Subject("rename, link and symlink in the spool")
    private = os.path.join(root, "tmp", f"doctor-{os.getpid()}")
    renamed, linked = (os.path.join(root, "quarantine", f".doctor-{os.getpid()}-{n}.tmp") for n in (1, 2))
    try:
        fsops.write_private(private, b"")
        if fsops.move(private, renamed) and fsops.publish(renamed, linked) and fsops.note(private, "0"):
            return what.fine("work")
        return what.refused("a file that the doctor just wrote is gone", "use another file system")
    except OSError as error:
        remedy = "use a file system that has all three, mounted read-write"
        return what.refused(f"do not work: {error.strerror}", remedy)
    finally:
        for path in (private, renamed, linked):
            fsops.remove(path)


def _owners(settings: Settings) -> Finding:
    """Try to read a file of another user, as intake does, and to give one away where answers are given away."""
    what = Subject("files of other users in the spool")
    path = os.path.join(settings.spool.path, "tmp", f"doctor-{os.getpid()}")
    gives = settings.spool.answers == "owner"
    user = units.properties(INTAKE, "User").get("User", "")
    own = user not in ("", "root") and os.geteuid() == 0
    try:
        works = _works_for(user, path, gives=gives) if own else _works(path)
    finally:
        fsops.remove(path)
    if works:
        return what.fine(f"can be read{', and be given to their owners' if gives else ''}")
    who = f"{user}: " if own else ""
    return what.warning(
        f"{who}cannot be read if their mode is 0600"
        f"{', or be given to their owners: only this account could read responses' if gives else ''}",
        "run intake as root or with that right (as in systemd/); on NFS as root, and export with no_root_squash, see "
        "contrib/docs/operator.md",
    )


def _works(path: str) -> bool:
    try:
        fsops.write_private(path, b"", owner=(NOBODY, NOBODY))
        fsops.read(path)
    except PermissionError:
        return False
    return True


def _works_for(user: str, path: str, *, gives: bool) -> bool:
    """Try the same as the unit's user with the unit's capabilities, which mean nothing to a file server.

    Only descriptors are used: others may write to that directory, and put a link under the name.
    """
    group = os.stat(os.path.dirname(path)).st_gid
    rights = RIGHTS + (GIVING if gives else "")
    capabilities = f"--inh-caps={rights}", f"--ambient-caps={rights}"
    become = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", *capabilities]
    python = [sys.executable, "-I", "-S", "-c"]
    try:
        if gives:
            return proc.run([*become, *python, GIVE + READ, path], units.QUICK).ok
        fsops.write_private(path, b"", owner=(NOBODY, NOBODY))
    except PermissionError:
        return False
    return proc.run([*become, *python, READ, path], units.QUICK).ok


def _clock(root: str) -> Finding:
    probe = os.path.join(root, "tmp", f"doctor-{os.getpid()}{Kept.PROBE}")
    try:
        apart = abs(Clock(probe).file_system() - time.time())
    finally:
        fsops.remove(probe)
    if apart > SKEW:
        return Subject("clock").warning(
            f"the clocks of the file server and of this machine are {apart:.0f} s apart; spoold uses the file server's",
            "set both clocks with NTP",
        )
    return Subject("clock").fine("this machine and the file system agree")


def _roles(settings: Settings) -> Iterator[Finding]:
    temporary = os.path.join(settings.spool.path, "tmp")
    executors = sorted(
        name.removesuffix(Kept.LOCK)
        for name in os.listdir(temporary)
        if name.startswith(("executor-", "router-")) and name.endswith(Kept.LOCK)
    )
    single = [role for role in SINGLE if role in ALWAYS or settings.scale.pools]
    for role in (*single, *(executors or [f"executor-{settings.executor.name}"])):
        holders = machine.lock_holders(os.path.join(temporary, role + Kept.LOCK))
        if holders:
            yield Subject(f"daemon {role}").fine(f"runs (pid {holders[0]})")
        else:
            remedy = _start(role)
            if host := elsewhere(settings.spool.path, role):
                remedy = f"nothing, while that host lives. To start it here: {remedy}"
            yield Subject(f"daemon {role}").note(
                f"does not run on this host{f', last on {host!a}' if host else ''}", remedy
            )


def _start(process: str) -> str:
    kind, _, name = process.partition("-")  # executor-NAME, router-NAME, or a role
    if kind == "router":
        return f"`spoold executor --name {name} --route-only`"
    unit, command = (f"{kind}@{name}", f"{kind} --name {name}") if name else (kind, kind)
    return f"systemctl start spoold-{unit}, or `spoold {command}`"


def _leases(settings: Settings) -> Finding:
    """Look for entries that somebody should have put back by now."""
    root, what = settings.spool.path, Subject("leases")
    probe = os.path.join(root, "tmp", f"doctor-{os.getpid()}{Kept.PROBE}")
    now = Clock(probe).file_system()
    fsops.remove(probe)
    longest = settings.lease.limit + 3 * settings.lease.check
    stale = [
        os.path.join(state, name)
        for state in (kind.directory(state) for kind in Kind for state in kind.leased)
        for name in fsops.names(os.path.join(root, state))
        if (seen := fsops.mtime(os.path.join(root, state, name))) is not None and now - seen > longest
    ]
    if stale:
        return what.warning(
            f"{len(stale)} entries are held by no worker, for example {stale[0]!a}",
            "start `spoold health`: it puts them back into their queues",
        )
    return what.fine("every held entry has a worker")
