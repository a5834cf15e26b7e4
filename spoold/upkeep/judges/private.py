"""The judge of private files: those that processes write in ``tmp/`` before they publish, and those that they keep.

Spec: spool-layout.md, "Commit and publication" and "Check and repair". The entry of a result explains that result. Age
explains all other files: a young file's writer is still at work, and an old file's writer is dead.
"""

from __future__ import annotations

import re

from spoold.host import fsops
from spoold.model import ids
from spoold.model.ids import Entry, Kept
from spoold.model.states import State
from spoold.spool.queue import Queue
from spoold.spool.store import Spool
from spoold.upkeep.judges.evidence import is_young
from spoold.upkeep.unexplained import Action, Verdict

KEPT = re.compile(rf".*({'|'.join(map(re.escape, Kept))})")


class PrivateJudge:
    """Judges the files in ``tmp/`` of one ``queue``. ``directory`` is that ``tmp/``, below the root of ``spool``."""

    def __init__(self, spool: Spool, queue: Queue, directory: str) -> None:
        self._spool = spool
        self._queue = queue
        self._directory = directory

    def judge(self, name: str) -> Verdict | None:
        """Judge a file by its name. Return None where that explains it."""
        path = f"{self._directory}/{name}"
        if ids.is_trial(name):
            return None if is_young(self._spool, path) else Verdict("left by a doctor that died", Action.REMOVE)
        if KEPT.fullmatch(name):
            return None
        if result := ids.parse_result(name):
            return self._result(path, result)
        beside = ids.result_beside(name)
        if beside and fsops.exists(self._queue.path("tmp", beside)):
            return None  # it goes with the result beside it
        if not ids.is_private(name):
            return Verdict("not a private file of spoold's", Action.QUARANTINE)
        return None if is_young(self._spool, path) else Verdict("a private file of a process that died", Action.REMOVE)

    def _result(self, path: str, result: Entry) -> Verdict | None:
        place = self._queue.locate(result.id, result)
        if place is None:
            return None if is_young(self._spool, path) else Verdict("a result of an entry that is gone", Action.REMOVE)
        state, entry = place
        if state is State.DONE and fsops.exists(self._queue.path(State.DONE, ids.response_name(result.id))):
            return None if is_young(self._spool, path) else Verdict("a second name of a response", Action.REMOVE)
        if state is not State.DONE and result.attempt < entry.attempt:
            return Verdict("the result of an attempt that lost its lease", Action.REMOVE)
        return None
