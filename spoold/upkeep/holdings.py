"""What owners have in the spool: a walk through what was accepted, answered or set aside, file by file.

Spec: spool-layout.md, "Shares" and "Retention". Names tell whose a file is, but in ``done/``, where the answer does. A
walk is done a few names at a time, so that it holds up nothing, and needs no memory for what lies there.

What fails: a name that cannot be looked at is passed over, and said seldom. Over a name that is theirs (an answer that
was given away, what they had in ``incoming/``) a user can mount a file system of their own (FUSE).
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
# Seconds by which a file may be younger than now, or than its last change, which no client can set and which tells of a
# clock that was set back; one that claims more says nothing about its age.
AHEAD = 60.0
NOBODY = -1  # stands for the owner where nothing tells
RESPONSE, TAR, REFUSAL = ids.response_name(""), ids.tar_name(""), ".refused.json"


class Pause(Enum):
    """Why a walk stops for a moment: it did a part of its work, or it waits for the archive command."""

    WORKED = auto()
    WAITS = auto()


class Item(NamedTuple):
    """What counts, and goes, as one: whose it is, when it ended, the bytes that it takes of the disk, and its files.

    ``entry`` is the name of the entry, "" where there is none, and ``file`` that of the answer or what else it is. Of
    one that is ``hidden`` the answer cannot be looked at: it counts by its entry. ``tar`` is the name of the returned
    files that lie beside the answer, "" where there are none.
    """

    owner: int
    time: float
    size: int
    entry: str
    file: str
    hidden: bool = False
    tar: str = ""


def everything(spool: Spool, seldom: Seldom) -> Iterator[Item | Pause]:
    """Yield all that counts as somebody's; when it ended is of no account."""
    queue = spool.queue
    for state in queue.kind.on_its_way:
        yield from on_its_way(queue, state, seldom)
    yield from finished(spool, 0.0, seldom)
    yield from set_aside(queue.path("quarantine"), seldom)
    yield from built(queue.path("builds"), seldom)


def built(builds: str, seldom: Seldom) -> Iterator[Item | Pause]:
    """Yield the builds that each owner asked for: expressions and logs are as long as whoever asked wants."""

    def item(name: str) -> Item | None:
        build_id, _, user = name.partition("@")
        facts = attributes.facts(os.path.join(builds, State.DONE, ids.response_name(build_id)))
        # The entry has the whole expression.
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
    """Yield what has an answer. An entry's mtime tells when: a client could set that of a response that is theirs."""
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
    """Return returned files whose entry and response are gone; they count with these as long as they are there."""
    id_, path = name.removesuffix(TAR), os.path.join(done, name)
    entry = os.path.join(done, ids.done_name(id_))
    if fsops.exists(entry) or fsops.exists(os.path.join(done, ids.response_name(id_))):
        return None
    facts = attributes.facts(path)
    return None if facts is None else Item(_whose(path, entry, facts.uid, readers), 0.0, facts.size, "", name)


def _whose(answer: str, entry: str, uid: int, readers: AbstractSet[int]) -> int:
    """Return whose an answer is: the user whom its list lets read it, or to whom it was given away."""
    try:
        access = acl.of(answer)
    except OSError:
        return uid  # it went, or cannot be seen
    if access is None:
        return uid
    users = acl.users(access)
    if len(users) > 1:
        users -= readers
    return users.pop() if len(users) == 1 else _submitter(entry)


def _submitter(entry: str) -> int:
    """Return who submitted what an entry in ``done/`` holds."""
    with contextlib.suppress(msgspec.DecodeError, NewerFormatError, OSError):
        if data := fsops.read(entry):
            return formats.decode(data, Submission, entry).Spool.uid
    return NOBODY


def set_aside(quarantine: str, seldom: Seldom) -> Iterator[Item | Pause]:
    """Yield what is in quarantine/."""

    def item(name: str) -> Item | None:
        facts = attributes.facts(os.path.join(quarantine, name))
        if facts is None:
            return None
        # A directory is still its client's, who may set its mtime.
        time = facts.ctime if facts.directory else facts.mtime
        return Item(_or_nobody(ids.kept_for(name)), time, facts.size, "", name)

    return _each(quarantine, item, seldom)


def items(walk: Iterable[Item | Pause]) -> Iterator[Item]:
    """Return a walk without its pauses."""
    return (found for found in walk if isinstance(found, Item))


def _or_nobody(owner: int | None) -> int:
    return NOBODY if owner is None else owner


def walk(directory: str) -> Iterator[str | Pause]:
    """Yield the names in a directory."""
    with os.scandir(directory) as entries:
        for number, entry in enumerate(entries, 1):
            yield entry.name
            if number % PART == 0:
                yield Pause.WORKED


@contextlib.contextmanager
def passing_over(path: str, seldom: Seldom) -> Iterator[str]:
    """Say that a name is passed over where the block meets an error at it: it is nobody else's matter."""
    try:
        yield path
    except OSError as error:
        seldom.error("passed over: a file cannot be looked at, read or removed", error.errno, path=path, error=error)


def _each(directory: str, item: Callable[[str], Item | None], seldom: Seldom) -> Iterator[Item | Pause]:
    """Yield what the names in a directory stand for."""
    for name in walk(directory):
        if isinstance(name, Pause):
            yield name
            continue
        found = None
        with passing_over(os.path.join(directory, name), seldom):
            found = item(name)
        if found:
            yield found
