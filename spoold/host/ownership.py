"""Who can change a file. We ask before root runs the file or mounts it.

Theory of operation. A path is walked from the root, one component after the other, links included. A user who can write
to one of the directories can replace everything below it. So each component must belong to root, or to the user that
runs this process, and nobody else may write to it. Two exceptions are safe. One is a directory with the sticky bit,
such as /tmp, as long as the next component belongs to one of these users. The other is a group that may write and has
no other members.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Collection

from spoold.host import acl
from spoold.host.accounts import user_name
from spoold.model.errors import OperatorError

MOST_LINKS = 40  # symbolic links that one path may lead through, as in the kernel


def settled(path: str, remedy: str, *, also: Collection[int] = (), itself: bool = True) -> str:
    """Return the real path of ``path``; raise OperatorError where a stranger can change what it stands for.

    Strangers are all users but root, the user of this process, and the users ``also``. ``remedy`` ends the message.
    Without ``itself`` the file may be anybody's, and only the way to it is checked.
    """
    owners = {0, os.geteuid(), *also}
    here, todo, links = "/", [*reversed(path.split("/"))], 0
    _refuse(here, os.lstat(here), owners, remedy)
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            here = os.path.dirname(here)
            continue
        name = os.path.join(here, part)
        found = _seen(name, remedy)
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > MOST_LINKS:
                raise OperatorError(f"{path}: too many symbolic links. {remedy}")
            _refuse(name, found, owners, remedy)
            target = os.readlink(name)
            here = "/" if target.startswith("/") else here
            todo.extend(reversed(target.split("/")))
            continue
        if itself or any(part not in ("", ".") for part in todo):
            _refuse(name, found, owners, remedy)
        here = name
    return here


def _seen(name: str, remedy: str) -> os.stat_result:
    try:
        return os.lstat(name)
    except OSError as error:
        raise OperatorError(f"{name} cannot be looked at: {error.strerror}. {remedy}") from error


def _refuse(name: str, found: os.stat_result, owners: Collection[int], remedy: str) -> None:
    mode = f"mode {stat.S_IMODE(found.st_mode):04o}"
    if found.st_uid not in owners:
        raise OperatorError(f"{name} belongs to {user_name(found.st_uid)} ({mode}), who can change it. {remedy}")
    if stat.S_ISLNK(found.st_mode) or (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
        return  # nobody can write to a link, and only its owner can replace a file in a sticky directory
    if found.st_mode & stat.S_IWOTH:
        raise OperatorError(f"{name} can be changed by everybody ({mode}). {remedy}")
    if found.st_mode & stat.S_IWGRP and (who := _writers(name, found.st_gid, owners)):
        raise OperatorError(f"{name} can be changed by {who} ({mode}). {remedy}")


def _writers(name: str, gid: int, owners: Collection[int]) -> str:
    """Name the strangers whom the group's right to write lets in, "" where there are none."""
    with contextlib.suppress(OSError):
        if acl.of(name) is not None:
            return "users that its access control list names"  # the group's bits are the list's mask
    members = {each.pw_name for each in pwd.getpwall() if each.pw_gid == gid and each.pw_uid not in owners}
    group = str(gid)
    with contextlib.suppress(KeyError):
        found = grp.getgrgid(gid)
        group = found.gr_name
        members |= {member for member in found.gr_mem if _uid(member) not in owners}
    return f"the members of group {group} ({', '.join(sorted(members))})" if members else ""


def _uid(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None
