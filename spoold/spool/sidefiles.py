"""Side files of executors that only commit: left in ``tmp/`` for health, which shows them to their owners.

Spec: spool-layout.md, "Commit and publication". Such an executor cannot let an owner read a file. So it leaves the
response so far under a private name that tells the entry, by a rename, and health writes a copy that the owner can
read. Nothing is decided by these files, so they are not synced. What fails: health removes what is left of an entry
that nobody works on any more, and where a copy cannot be written, the next one is.
"""

from __future__ import annotations

import re

from spoold.host import fsops
from spoold.model import ids
from spoold.model.ids import Entry, Private
from spoold.model.states import State
from spoold.spool.answers import Answers
from spoold.spool.queue import Queue

LARGEST = 1 << 20  # bytes, more than a side file has
LEFT = re.compile(rf"(.+@(?:0|[1-9][0-9]*)-[1-9][0-9]*)\.left{re.escape(Private.PROGRESS)}")
OF_STATES = (State.RUNNING, State.BUILDING)


def leave(queue: Queue, entry: Entry, data: bytes) -> None:
    """Leave the response so far of an entry to health. An entry whose name tells no owner has none."""
    if entry.owner is None or entry.attempt < 1:
        return
    path = queue.private(Private.PROGRESS, f"{ids.claimed_name(entry).removesuffix('.json')}.left")
    private = f"{path}{Private.NOTE}"
    fsops.write_private(private, data, sync=False)
    fsops.replace(private, path)


def show_left(queue: Queue, answers: Answers) -> None:
    """Show what executors left of entries that are worked on, and remove all other that they left."""
    for name in fsops.names(queue.path("tmp")):
        match = LEFT.fullmatch(name)
        entry = ids.parse_entry(f"{match[1]}.json") if match else None
        if entry is None or entry.owner is None:
            continue
        path = queue.path("tmp", name)
        private = queue.private(Private.PROGRESS, f"{entry.id}@{entry.attempt}")
        try:
            data = fsops.read(path, LARGEST)
        except fsops.OddFileError:
            data = None
        fsops.remove(path)  # the executor leaves another one where there is more to show
        if data is None or not any(fsops.exists(queue.entry_path(state, entry)) for state in OF_STATES):
            continue
        answers.write(private, data, (entry.owner, -1), sync=False)
        fsops.replace(private, queue.path("progress", ids.done_name(entry.id)))
