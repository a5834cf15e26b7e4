"""Persons: who stands behind a uid, and how much weight they have.

Spec: spool-layout.md, "Turns". A user with a range in /etc/subuid can become any uid of that range, by newuidmap(1),
and a range usually has 65,536 uids. So a uid of a range counts as the range's holder, in turns and in bounds. A uid
that lies in several ranges counts as the holder of the first one in the file. A holder's own uid may lie in another
range. Then it counts as that range's holder.

:meth:`Persons.look` reads the file again where it has changed. A file that cannot be read changes nothing. Where the
name of a holder is unknown here, the range still counts as one person: its first uid.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from spoold.host import accounts
from spoold.host.log import Log
from spoold.model.errors import OperatorError

log = Log("daemon")
SUBUID = "/etc/subuid"  # see subuid(5)
MOST = 100_000  # uids that are remembered; on a file server a client may have made up any number of them


class _Range(NamedTuple):
    holder: str
    uids: range


class Persons:
    """The persons of this host, by the file of subordinate ranges ``path``."""

    def __init__(self, path: str | None = None) -> None:
        self._path = path or SUBUID
        self._seen: tuple[int, ...] | None = None
        self._ranges: list[_Range] = []
        self._known: dict[int, int] = {}
        self.look()

    def look(self) -> None:
        """Read the file again if it has changed."""
        try:
            seen = _identity(self._path)
            if seen == self._seen:
                return
            text = Path(self._path).read_text(errors="replace") if seen else ""
        except OSError as error:
            log.error(
                "the file of subordinate uids cannot be read; its earlier content stays in use",
                file=self._path,
                error=error,
            )
            return
        self._ranges = [found for line in text.splitlines() if (found := _parse(line))]
        self._seen, self._known = seen, {}

    def of(self, uid: int) -> int:
        """Return the uid of the person who stands behind ``uid``."""
        if not self._ranges:
            return uid
        person = self._known.get(uid)
        if person is None:
            if len(self._known) >= MOST:
                self._known.clear()
            person = self._known[uid] = self._find(uid)
        return person

    def _find(self, uid: int) -> int:
        passed: set[int] = set()  # ranges that lie in each other in a circle are a mistake that must not hang us
        while uid not in passed:
            passed.add(uid)
            uid = self._holder(uid)
        return uid

    def _holder(self, uid: int) -> int:
        """Return the holder of the first range that ``uid`` is in, ``uid`` itself where there is none."""
        for each in self._ranges:
            if uid in each.uids:
                named = accounts.uid_of(each.holder)
                if named is None:
                    return int(each.holder) if each.holder.isdecimal() else each.uids.start
                return named
        return uid


def _identity(path: str) -> tuple[int, ...]:
    """Return what tells the present file at ``path`` from former ones, () where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _parse(line: str) -> _Range | None:
    holder, _, rest = line.strip().partition(":")
    first, _, count = rest.partition(":")
    if not (holder and first.isdecimal() and count.isdecimal() and int(count)):
        return None
    return _Range(holder, range(int(first), int(first) + int(count)))


def weights(wanted: Mapping[str, float]) -> dict[int, float]:
    """Return the weights of persons by uid, from those of ``NAME``, ``uid:N`` and ``group:NAME``.

    A user's own weight counts before those of groups, and of several groups the largest weight counts. Raises
    :class:`OperatorError`, which names the key, for a user or group that this host does not have.
    """
    own: dict[int, float] = {}
    by_group: dict[int, float] = {}
    for key, weight in wanted.items():
        kind, colon, name = key.partition(":")
        if kind == "group" and colon:
            for uid in _members(key, name):
                by_group[uid] = max(weight, by_group.get(uid, 0.0))
        else:
            own[_user(key, name if kind == "uid" and colon else None)] = weight
    return by_group | own


def weights_if_known(wanted: Mapping[str, float]) -> dict[int, float] | None:
    """Return what :func:`weights` does, for a daemon that runs; None, and a line in the log, where a user is gone."""
    try:
        return weights(wanted)
    except OperatorError as error:
        log.error("new weights cannot be used; the earlier ones stay in use", error=error)
        return None


def _members(key: str, group: str) -> list[int]:
    try:
        names = accounts.members(group)
    except KeyError:
        raise OperatorError(f"turns.weights: {key!a}: there is no group {group!a} on this host") from None
    return [uid for name in names if (uid := accounts.uid_of(name)) is not None]


def _user(key: str, number: str | None) -> int:
    if number is not None:
        if number.isdecimal():
            return int(number)
        raise OperatorError(f"turns.weights: {key!a}: a uid is a number, such as uid:1000")
    uid = accounts.uid_of(key)
    if uid is None:
        raise OperatorError(
            f"turns.weights: there is no user {key!a} on this host: write a user's name, uid:NUMBER or group:NAME"
        )
    return uid
