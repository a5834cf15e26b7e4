"""The judge of builds: their entries, their results, and the files that the builder keeps beside them.

Spec: spool-layout.md, "The Build store" and "Check and repair".
"""

from __future__ import annotations

import os
import re

from spoold.model import ids
from spoold.model.collection import Order, Report
from spoold.model.formats import Stored
from spoold.model.job import Runtime
from spoold.model.states import State
from spoold.model.submission import Dependencies
from spoold.spool.builds import BuildRecord
from spoold.spool.fetching import FetchingNow
from spoold.spool.pins import PinsAnswer
from spoold.spool.queue import Queue
from spoold.upkeep.judges.evidence import is_answered
from spoold.upkeep.unexplained import Action, Verdict, newer, undecodable

BUILD = re.compile(r"[0-9a-f]{64}")
NAMES = {
    "builds": re.compile(r"runtime\.json|fetching\.json|pins\.json|pins\.json\.result\.json|collect\.lock"),
    "builds/used": re.compile(r"[0-9a-f]{64}@[0-9]+"),
    "builds/collect": re.compile(r"[A-Za-z0-9-]+(\.result)?\.json"),
}
KINDS: dict[str, tuple[tuple[str, type[Stored]], ...]] = {  # what these files hold, by the end of their names
    "builds": (("pins.json.result.json", PinsAnswer), ("runtime.json", Runtime), ("fetching.json", FetchingNow)),
    "builds/collect": ((".result.json", Report), (".json", Order)),
}


class BuildJudge:
    """Judges the files that belong to builds, in the spool at ``root``. A verdict is None where a file is fine."""

    def __init__(self, root: str, queue: Queue) -> None:
        self._root = root
        self._queue = queue

    def in_state(self, state: State, name: str) -> Verdict | None:
        """Judge a build on its way."""
        entry = ids.parse_entry(name)
        path = self._queue.path(state, name)
        if entry is None or not BUILD.fullmatch(entry.id) or self._queue.entry_path(state, entry) != path:
            return Verdict("not the name of a build", Action.QUARANTINE)
        return undecodable(path, Dependencies)

    def in_done(self, name: str) -> Verdict | None:
        """Judge a build that has ended, or its result."""
        id_ = name.removesuffix(ids.response_name(""))
        if id_ != name:
            return undecodable(self._queue.path(State.DONE, name), BuildRecord)
        id_ = name.removesuffix(".json")
        if not BUILD.fullmatch(id_) or ids.done_name(id_) != name:
            return Verdict("neither a build nor its result", Action.QUARANTINE)
        if is_answered(self._queue, id_):
            return None
        unfinished = Verdict("a build that ended without a result: submissions wait for it", Action.QUARANTINE)
        return newer(self._queue.path(State.DONE, name), Dependencies) or unfinished

    def beside(self, directory: str, name: str) -> Verdict | None:
        """Judge a file beside the builds, in ``directory`` below the spool's root."""
        if not NAMES[directory].fullmatch(name):
            return Verdict("no file of this directory has such a name", Action.QUARANTINE)
        kind = next((kind for ending, kind in KINDS.get(directory, ()) if name.endswith(ending)), None)
        return newer(os.path.join(self._root, directory, name), kind) if kind else None
