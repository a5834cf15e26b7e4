"""The repair: deals with a file that no state explains.

Spec: spool-layout.md, "Check and repair". A file that cannot be read is never deleted. It goes to ``quarantine/``, with
the reason beside it.
"""

from __future__ import annotations

import os
import re

import msgspec

from spoold.host import attributes, fsops
from spoold.model import formats, ids
from spoold.model.response import Status
from spoold.model.states import State
from spoold.model.submission import Submission
from spoold.spool.store import Spool
from spoold.upkeep.unexplained import Action, Unexplained

UNSAFE = re.compile(r"[^A-Za-z0-9._@-]")


def repair(spool: Spool, found: Unexplained) -> None:
    """Carry out the action for a file. May be repeated."""
    path = os.path.join(spool.root, found.path)
    if found.action is Action.REMOVE:
        fsops.remove(path)
    elif found.action is Action.QUARANTINE:
        _quarantine(spool, path, found)
    elif found.action is Action.ANSWER:
        _answer(spool, found)
    elif found.action is Action.LET_IN:
        spool.write_anew(os.path.basename(path))


def _quarantine(spool: Spool, path: str, found: Unexplained) -> None:
    seen = attributes.identity(path)
    if seen is None:
        return
    name = f"{UNSAFE.sub('-', found.path)[:150]}@{seen.inode}"
    fsops.write_private(spool.queue.path("quarantine", f"{name}.reason"), (found.why + "\n").encode())
    fsops.move(path, spool.queue.path("quarantine", f"{name}.bytes"))


def _answer(spool: Spool, found: Unexplained) -> None:
    """End a submission that cannot go on. Its owner gets the answer that is due, where the owner can be read."""
    directory, name = os.path.split(found.path)
    state, entry = State(directory), ids.parse_entry(name)
    if entry is None:
        return
    if state is not State.DONE:
        spool.give_up(entry, state, found.why)
        return
    data = spool.queue.read(state, entry)
    try:
        submission = formats.decode(data, Submission, spool.queue.entry_path(state, entry))
    except msgspec.DecodeError:
        _quarantine(spool, os.path.join(spool.root, found.path), found)
        return
    reason = "the result was lost before it was published: submit it again under another name"
    final = msgspec.structs.replace(submission.Response, status=Status.INTERNAL_ERROR, reason=reason)
    spool.answer_committed(entry.id, final, submission.Spool)
