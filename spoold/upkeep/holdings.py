"""What owners have in the spool: a walk through what was accepted, answered or set aside, file by file.

Spec: spool-layout.md, "Shares" and "Retention". Names tell whose a file is, but in ``done/``, where the answer does. A
walk is done a few names at a time, so that it holds up nothing, and needs no memory for what lies there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from enum import Enum, auto
from typing import NamedTuple

import msgspec

from spoold.host import acl, fsops
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
RESPONSE, REFUSAL = ids.response_name(""), ".refused.json"


class Pause(Enum):
    """Why a walk stops for a moment: it did a part of its work, or it waits for the archive command."""

    WORKED = auto()
    WAITS = auto()


class Item(NamedTuple):
    """What counts, and goes, as one: whose it is, when it ended, the bytes that it takes of the disk, and its files.

    ``entry`` is the name of the entry, "" where there is none, and ``file`` that of the answer or what else it is.
    """

    owner: int
    time: float
    size: int
    entry: str
    file: str


def everything(spool: Spool) -> Iterator[Item | Pause]:
    """Yield all that counts as somebody's; when it ended is of no account."""
    queue = spool.queue
    for state in queue.kind.on_its_way:
        yield from on_its_way(queue, state)
    yield from finished(spool, 0.0)
    yield from set_aside(queue.path("quarantine"))
    yield from built(queue.path("builds"))


def built(builds: str) -> Iterator[Item | Pause]:
    """Yield the builds that each owner asked for: expressions and logs are as long as whoever asked wants."""
    for name in walk(os.path.join(builds, "used")):
        if isinstance(name, Pause):
            yield name
            continue
        build_id, _, user = name.partition("@")
        facts = fsops.facts(os.path.join(builds, State.DONE, ids.response_name(build_id)))
        entry = fsops.facts(os.path.join(builds, State.DONE, ids.done_name(build_id)))  # which has the whole expression
        if facts and user.isdecimal():
            yield Item(int(user), facts.mtime, facts.size + (entry.size if entry else 0), "", name)


def on_its_way(queue: Queue, state: State) -> Iterator[Item | Pause]:
    """Yield the entries of a state, each with its side file."""
    for name in walk(queue.path(state)):
        if isinstance(name, Pause):
            yield name
        elif (entry := ids.parse_entry(name)) and (facts := fsops.facts(queue.path(state, name))):
            side = fsops.facts(queue.path("progress", ids.done_name(entry.id)))
            size = facts.size + (side.size if side else 0)
            yield Item(_or_nobody(entry.owner), facts.mtime, size, name, "")


def finished(spool: Spool, now: float) -> Iterator[Item | Pause]:
    """Yield what has an answer. An entry's mtime tells when: a client could set that of a response that is theirs."""
    done, readers = spool.queue.path(State.DONE), spool.answers.readers.users
    for name in walk(done):
        if isinstance(name, Pause):
            yield name
        elif name.endswith(RESPONSE):
            entry = ids.done_name(name.removesuffix(RESPONSE))
            first, second = (fsops.facts(os.path.join(done, each)) for each in (entry, name))
            if second is not None:
                owner = _whose(os.path.join(done, name), os.path.join(done, entry), second.uid, readers)
                time = 0.0 if first is None else first.mtime
                yield Item(owner, time, second.size + (first.size if first else 0), entry if first else "", name)
        elif name.endswith(REFUSAL) and (facts := fsops.facts(os.path.join(done, name))):
            time = facts.mtime if facts.mtime <= max(now, facts.ctime) + AHEAD else 0.0
            yield Item(_or_nobody(ids.kept_for(name)), time, facts.size, "", name)


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
    if len(users) == 1:
        return users.pop()
    with contextlib.suppress(msgspec.DecodeError, NewerFormatError, OSError):
        if data := fsops.read(entry):
            return formats.decode(data, Submission, entry).Spool.uid
    return NOBODY


def set_aside(quarantine: str) -> Iterator[Item | Pause]:
    """Yield what is in quarantine/."""
    for name in walk(quarantine):
        if isinstance(name, Pause):
            yield name
        elif facts := fsops.facts(os.path.join(quarantine, name)):
            # A directory is still its client's, who may set its mtime.
            time = facts.ctime if facts.directory else facts.mtime
            yield Item(_or_nobody(ids.kept_for(name)), time, facts.size, "", name)


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
