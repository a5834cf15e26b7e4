"""The accounts of the host: users, groups and their members, such as the daemons where each is a user of its own."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Accounts(NamedTuple):
    """The id of a group, and the ids of users by name."""

    gid: int
    uids: Mapping[str, int]


def find(group: str, users: Iterable[str]) -> Accounts | None:
    """Return the ids of ``group`` and of all ``users``, None where this host lacks one of them."""
    try:
        return Accounts(grp.getgrnam(group).gr_gid, {name: pwd.getpwnam(name).pw_uid for name in users})
    except KeyError:
        return None


def missing(group: str, users: Iterable[str]) -> list[str]:
    """Return the accounts that this host does not have: ``group NAME`` for the group, and the names of users."""
    return [
        *([f"group {group}"] if gid_of(group) is None else []),
        *(name for name in users if uid_of(name) is None),
    ]


def user_name(uid: int) -> str:
    """Return the name of a user, their number where they have none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def uid_of(user: str) -> int | None:
    """Return the id of a user, None where there is none of that name."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def gid_of(group: str) -> int | None:
    """Return the id of a group, None where there is none of that name."""
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None


def groups_of(user: str) -> set[int]:
    """Return the ids of the groups that a user is in."""
    return set(os.getgrouplist(user, pwd.getpwnam(user).pw_gid))


def members(group: str) -> set[str]:
    """Return the names of a group's members, users whose primary group it is included."""
    found = grp.getgrnam(group)
    return {*found.gr_mem, *(each.pw_name for each in pwd.getpwall() if each.pw_gid == found.gr_gid)}


def owned_by(path: str, uid: int, gid: int) -> bool:
    """Tell whether a file belongs to that user and group."""
    found = os.stat(path)
    return (found.st_uid, found.st_gid) == (uid, gid)
