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


def groups_of(user: str) -> set[int]:
    """Return the ids of the groups that a user is in."""
    return set(os.getgrouplist(user, pwd.getpwnam(user).pw_gid))
