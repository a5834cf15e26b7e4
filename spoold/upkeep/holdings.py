"""The holdings of owners in the spool: a walk through accepted, answered and set aside files, one by one.

Spec: spool-layout.md, "Shares" and "Retention". The name of a file tells its owner, except in ``done/``, where the
answer does. A walk takes a few names at a time. So it delays nothing, and needs no memory for what lies there.

What fails: a name that cannot be looked at is passed over, and logged now and then. Users can mount a file system of
their own (FUSE) over a name that is theirs: an answer that was given away, or their former files in ``incoming/``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from enum import Enum, auto
from typing import NamedTuple

import msgspec

from spoold.host import acl, attributes, fsops
from spoold.host.seldom import Seldom
from spoold.model import formats, ids
from spoold.model.errors import NewerFormatError
from spoold.model.states import State
from spoold.model.submission import Submission
from spoold.spool.queue import Queue
from spoold.spool.store import Spool

PART = 256  # names between two pauses
# Seconds by which the mtime of a file may be later than now, or than the file's last change. No client can set the time
# of that change, and it shows that a clock was set back. An mtime beyond that says nothing about the file's age.
AHEAD = 60.0
NOBODY = -1  # stands for the owner where nothing tells who it is
RESPONSE, TAR, REFUSAL = ids.response_name(""), ids.tar_name(""), ".refused.json"


class Pause(Enum):
    """Why a walk stops for a moment: it did a part of its work, or it waits for the archive command."""

    WORKED = auto()
    WAITS = auto()


class Item(NamedTuple):
    """Files that count, and are removed, as one: their owner, when it ended, and their bytes on the disk.

    ``entry`` is the name of the entry, "" where there is none. ``file`` is the name of the answer or of the other file.
    The answer of a ``hidden`` item cannot be looked at, so the item counts by its entry. ``tar`` is the name of the
    returned files beside the answer, "" where there are none.
    """

    owner: int
    time: float
    size: int
    entry: str
    file: str
    hidden: bool = False
    tar: str = ""


def everything(spool: Spool, seldom: Seldom) -> Iterator[Item | Pause]:
    """Yield all files that count as somebody's. Their ``time`` is of no account."""
    queue = spool.queue
    for state in queue.kind.on_its_way:
        yield from on_its_way(queue, state, seldom)
    yield from finished(spool, 0.0, seldom)
    yield from set_aside(queue.path("quarantine"), seldom)
    yield from built(queue.path("builds"), seldom)


def built(builds: str, seldom: Seldom) -> Iterator[Item | Pause]:
    """Yield the builds that each owner asked for, since expressions and logs are as long as those owners want."""

    def item(name: str) -> Item | None:
        build_id, _, user = name.partition("@")
        facts = attributes.facts(os.path.join(builds, State.DONE, ids.response_name(build_id)))
        # The entry holds the whole expression.
        entry = attributes.facts(os.path.join(builds, State.DONE, ids.done_name(build_id)))
        if facts is None or not user.isdecimal():
            return None
        return Item(int(user), facts.mtime, facts.size + (entry.size if entry else 0), "", name)

    return _each(os.path.join(builds, "used"), item, seldom)


def on_its_way(queue: Queue, state: State, seldom: Seldom) -> Iterator[Item | Pause]:
    """Yield the entries of a state, each with its side file."""

    def item(name: str) -> Item | None:
        entry, facts = ids.parse_entry(name), attributes.facts(queue.path(state, name))
        if entry is None or facts is None:
            return None
        side = None
        with passing_over(queue.path("progress", ids.done_name(entry.id)), seldom) as path:
            side = attributes.facts(path)
        return Item(_or_nobody(entry.owner), facts.mtime, facts.size + (side.size if side else 0), name, "")

    return _each(queue.path(state), item, seldom)


def finished(spool: Spool, now: float, seldom: Seldom) -> Iterator[Item | Pause]:
    """Yield the items that have an answer.

    The ``time`` of a submission is its entry's mtime, since a client could set the mtime of a response that is its own.
    """
    done, readers = spool.queue.path(State.DONE), spool.answers.readers.users

    def item(name: str) -> Item | None:
        if name.endswith(RESPONSE):
            return _answered(done, name, readers, seldom)
        if name.endswith(TAR):
            return _left(done, name, readers)
        if name.endswith(REFUSAL) and (facts := attributes.facts(os.path.join(done, name))):
            time = facts.mtime if facts.mtime <= max(now, facts.ctime) + AHEAD else 0.0
            owner = ids.kept_for(name)
            if owner is None and (inside := spool.owner_of(name)):
                owner = inside[0]
            return Item(_or_nobody(owner), time, facts.size, "", name)
        return None

    return _each(done, item, seldom)


def _answered(done: str, name: str, readers: AbstractSet[int], seldom: Seldom) -> Item | None:
    id_ = name.removesuffix(RESPONSE)
    entry, tar = ids.done_name(id_), ids.tar_name(id_)
    entry_path, path = os.path.join(done, entry), os.path.join(done, name)
    first, second, beside, hidden = attributes.facts(entry_path), None, None, True
    with passing_over(path, seldom):
        second, beside, hidden = attributes.facts(path), attributes.facts(os.path.join(done, tar)), False
    if second is not None:
        owner, time = _whose(path, entry_path, second.uid, readers), 0.0 if first is None else first.mtime
        size = second.size + (first.size if first else 0) + (beside.size if beside else 0)
        return Item(owner, time, size, entry if first else "", name, tar=tar if beside else "")
    return Item(_submitter(entry_path), first.mtime, first.size, entry, name, hidden=True) if hidden and first else None


def _left(done: str, name: str, readers: AbstractSet[int]) -> Item | None:
    """Return a tar whose entry and response are gone. While these are there, the tar counts with them."""
    id_, path = name.removesuffix(TAR), os.path.join(done, name)
    entry = os.path.join(done, ids.done_name(id_))
    if fsops.exists(entry) or fsops.exists(os.path.join(done, ids.response_name(id_))):
        return None
    facts = attributes.facts(path)
    return None if facts is None else Item(_whose(path, entry, facts.uid, readers), 0.0, facts.size, "", name)


def _whose(answer: str, entry: str, uid: int, readers: AbstractSet[int]) -> int:
    """Return the owner of an answer: the user who may read it by its list, or who was given the file."""
    try:
        access = acl.of(answer)
    except OSError:
        return uid  # it is gone, or cannot be looked at
    if access is None:
        return uid
    users = acl.users(access)
    if len(users) > 1:
        users -= readers
    return users.pop() if len(users) == 1 else _submitter(entry)


def _submitter(entry: str) -> int:
    """Return who submitted the submission of an entry in ``done/``."""
    with contextlib.suppress(msgspec.DecodeError, NewerFormatError, OSError):
        if data := fsops.read(entry):
            return formats.decode(data, Submission, entry).Spool.uid
    return NOBODY


def set_aside(quarantine: str, seldom: Seldom) -> Iterator[Item | Pause]:
    """Yield the files in quarantine/."""

    def item(name: str) -> Item | None:
        facts = attributes.facts(os.path.join(quarantine, name))
        if facts is None:
            return None
        # A directory is still its client's, who can set its mtime.
        time = facts.ctime if facts.directory else facts.mtime
        return Item(_or_nobody(ids.kept_for(name)), time, facts.size, "", name)

    return _each(quarantine, item, seldom)


def items(walk: Iterable[Item | Pause]) -> Iterator[Item]:
    """Return a walk without its pauses."""
    return (found for found in walk if isinstance(found, Item))


def _or_nobody(owner: int | None) -> int:
    return NOBODY if owner is None else owner


def walk(directory: str) -> Iterator[str | Pause]:
    """Yield the names in a directory, and a pause after every few of them."""
    with os.scandir(directory) as entries:
        for number, entry in enumerate(entries, 1):
            yield entry.name
            if number % PART == 0:
                yield Pause.WORKED


@contextlib.contextmanager
def passing_over(path: str, seldom: Seldom) -> Iterator[str]:
    """Log that a name is passed over where the block meets an error. The error concerns no other name."""
    try:
        yield path
    except OSError as error:
        seldom.error("passed over: a file cannot be looked at, read or removed", error.errno, path=path, error=error)


def _each(directory: str, item: Callable[[str], Item | None], seldom: Seldom) -> Iterator[Item | Pause]:
    """Yield the items that the names in a directory stand for."""
    for name in walk(directory):
        if isinstance(name, Pause):
            yield name
            continue
        found = None
        with passing_over(os.path.join(directory, name), seldom):
            found = item(name)
        if found:
            yield found
