"""The accounts of the host: who the daemons are where each is a user of its own."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Accounts(NamedTuple):
    """The id of a group, and those of users by their names."""

    gid: int
    uids: Mapping[str, int]


def find(group: str, users: Iterable[str]) -> Accounts | None:
    """Return the ids of ``group`` and all ``users``, None where one of them is not there."""
    try:
        return Accounts(grp.getgrnam(group).gr_gid, {name: pwd.getpwnam(name).pw_uid for name in users})
    except KeyError:
        return None


def missing(group: str, users: Iterable[str]) -> list[str]:
    """Return which of them this host does not have."""
    return [*([] if _has_group(group) else [f"group {group}"]), *(name for name in users if not _has_user(name))]


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def user_name(uid: int) -> str:
    """Return the name of a user, his number where he has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def uid_of(user: str) -> int | None:
    """Return the id of a user, None where there is none of that name."""
    return pwd.getpwnam(user).pw_uid if _has_user(user) else None


def gid_of(group: str) -> int | None:
    """Return the id of a group, None where there is none of that name."""
    return grp.getgrnam(group).gr_gid if _has_group(group) else None


def groups_of(user: str) -> set[int]:
    """Return the ids of the groups that a user is in."""
    return set(os.getgrouplist(user, pwd.getpwnam(user).pw_gid))


def members(group: str) -> set[str]:
    """Return the users that are in a group, be it their first one."""
    found = grp.getgrnam(group)
    return {*found.gr_mem, *(each.pw_name for each in pwd.getpwall() if each.pw_gid == found.gr_gid)}


def owned_by(path: str, uid: int, gid: int) -> bool:
    """Tell whether a file belongs to that user and group."""
    found = os.stat(path)
    return (found.st_uid, found.st_gid) == (uid, gid)
