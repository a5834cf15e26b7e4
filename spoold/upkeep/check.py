"""The check: every file of the spool is explained by a state, or it is said what it is and what is to be done.

Spec: spool-layout.md, "Check and repair". Each file is judged alone and by names that can be looked at any time, so
the daemons may run meanwhile: what looks wrong only since it moved under the eyes of the check is explained at the
second look. What a newer version of spoold wrote is named, and left alone. What is done about a file, ``repair`` does.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial

import msgspec

from spoold.config import Settings
from spoold.host import fsops
from spoold.model import formats, ids
from spoold.model.collection import Order, Report
from spoold.model.errors import NewerFormatError
from spoold.model.formats import Stored
from spoold.model.ids import Entry, Kept
from spoold.model.job import Runtime
from spoold.model.states import Kind, State
from spoold.model.submission import Dependencies, Submission
from spoold.spool.answers import DIGEST, is_digest_of_nothing
from spoold.spool.builds import BuildRecord, BuildStore
from spoold.spool.layout import DIRECTORIES
from spoold.spool.pins import PinsAnswer
from spoold.spool.queue import Queue
from spoold.spool.recovery import ABANDONED
from spoold.spool.store import Spool
from spoold.upkeep.unexplained import Action, Unexplained, Verdict, left, newer, undecodable

PART = 256  # names between two pauses
SECOND_LOOK = 1.0  # seconds
BUILD = re.compile(r"[0-9a-f]{64}")
OURS = {
    "builds": re.compile(r"runtime\.json|pins\.json|pins\.json\.result\.json|collect\.lock"),
    "builds/used": re.compile(r"[0-9a-f]{64}@[0-9]+"),
    "builds/collect": re.compile(r"[A-Za-z0-9-]+(\.result)?\.json"),
    "tmp": re.compile(rf".*({'|'.join(map(re.escape, Kept))})|doctor-[0-9]+"),
    State.DONE: re.compile(r"doctor-[0-9]+"),
}
KINDS: dict[str, tuple[tuple[str, type[Stored]], ...]] = {  # what files of ours hold, by how their names end
    "builds": (("pins.json.result.json", PinsAnswer), ("runtime.json", Runtime)),
    "builds/collect": ((".result.json", Report), (".json", Order)),
}


class Check:
    """Judges the files of one ``spool``."""

    def __init__(self, settings: Settings, role: str) -> None:
        self.spool = Spool(settings, role)
        self._queue = self.spool.queue
        self._builds = BuildStore(settings).queue
        self._judges: dict[str, Callable[[str], Verdict | None]] = {
            ".": self._in_root,
            "incoming": self._in_incoming,
            "progress": self._in_progress,
            "ids": self._in_ids,
            "tmp": lambda name: self._in_tmp(self._queue, "tmp", name),
            "quarantine": lambda _: None,
            "builds": lambda name: self._of_ours("builds", name),
            "builds/used": lambda name: self._of_ours("builds/used", name),
            "builds/collect": lambda name: self._of_ours("builds/collect", name),
            "builds/tmp": lambda name: self._in_tmp(self._builds, "builds/tmp", name),
            **{
                Kind.SUBMISSION.directory(state): partial(self._in_state, state) for state in Kind.SUBMISSION.on_its_way
            },
            Kind.SUBMISSION.directory(State.DONE): self._in_done,
            **{Kind.BUILD.directory(state): partial(self._in_builds, state) for state in Kind.BUILD.on_its_way},
            Kind.BUILD.directory(State.DONE): self._in_builds_done,
        }

    def survey(self, without: Collection[str] = ()) -> Iterator[Unexplained | None]:
        """Yield what looks unexplained at a first look, None after every few names; leave directories out."""
        known = {directory.path for directory in DIRECTORIES}
        for directory in DIRECTORIES:
            if directory.path in without:
                continue
            with os.scandir(os.path.join(self.spool.root, directory.path)) as entries:
                for number, entry in enumerate(entries, 1):
                    path = os.path.normpath(os.path.join(directory.path, entry.name))
                    if path not in known and (found := self.judge(path)):
                        yield found
                    if number % PART == 0:
                        yield None

    def unexplained(self) -> list[Unexplained]:
        """Return what no state explains, at a second look either."""
        first = [found for found in self.survey() if found]
        if first:
            time.sleep(SECOND_LOOK)
        return [again for found in first if (again := self.judge(found.path)) == found]

    def judge(self, path: str) -> Unexplained | None:
        """Tell what is wrong with one file, None where nothing is or where it is gone.

        Over a name that is theirs users can mount a file system of their own, and then it cannot be looked at.
        """
        directory, name = os.path.split(path)
        try:
            verdict = self._judges[directory or "."](name)
            if verdict is None or not fsops.exists(os.path.join(self.spool.root, path)):
                return None
        except OSError as error:
            verdict = Verdict(f"cannot be looked at: {error}", Action.LEAVE)
        return Unexplained(path, *verdict)

    # -- judging

    def _in_root(self, _: str) -> Verdict | None:
        return Verdict("not spoold's", Action.LEAVE)

    def _of_ours(self, directory: str, name: str) -> Verdict | None:
        if not OURS[directory].fullmatch(name):
            return Verdict("not a name of this directory", Action.QUARANTINE)
        kind = next((kind for ending, kind in KINDS.get(directory, ()) if name.endswith(ending)), None)
        return newer(os.path.join(self.spool.root, directory, name), kind) if kind else None

    def _in_incoming(self, name: str) -> Verdict | None:
        if ids.submission_id(name) or ids.cancelled_id(name):
            return None
        if ids.is_upload_in_progress(name) and self._is_young(f"incoming/{name}"):
            return None
        return Verdict("a client's, and neither a submission nor on its way to be one", Action.LEAVE)

    def _in_state(self, state: State, name: str) -> Verdict | None:
        entry = ids.parse_entry(name)
        path = self._queue.path(state, name)
        if entry is None or self._queue.entry_path(state, entry) != path:
            return Verdict("not the name of an entry", Action.QUARANTINE)
        if later := self._later(state, entry):
            double = Verdict(f"the same submission is in {later}, a later state, and that counts", Action.QUARANTINE)
            return newer(path, Submission) or double
        return self._unreadable(path, entry.id)

    def _later(self, state: State, entry: Entry) -> str:
        """Return where else a submission is and counts, "" where nowhere: both names may be there after a crash."""
        if fsops.exists(self._queue.path(State.DONE, ids.done_name(entry.id))):
            return "done/"
        flow = Kind.SUBMISSION.on_its_way
        for other in flow[flow.index(state) :]:
            for attempt in self._queue.attempts_in(other):
                there = entry._replace(attempt=attempt)
                counts = other != state or attempt > entry.attempt
                if counts and fsops.exists(self._queue.entry_path(other, there)):
                    return f"{other}/ with attempt {attempt}"
        return ""

    def _unreadable(self, path: str, id_: str) -> Verdict | None:
        try:
            data = fsops.read(path)
            if data is None or formats.decode(data, Submission, path).Submission_id == id_:
                return None
        except NewerFormatError as error:
            return left(error)
        except (msgspec.DecodeError, OSError) as error:
            return Verdict(f"cannot be read: {error}", Action.ANSWER)
        return Verdict("holds another submission than its name says", Action.ANSWER)

    def _in_done(self, name: str) -> Verdict | None:
        if name.endswith((ids.response_name(""), ".refused.json", DIGEST)):
            return self._answered(name)
        if OURS[State.DONE].fullmatch(name):
            return None
        entry = ids.parse_entry(name)
        if entry is None or ids.done_name(entry.id) != name:
            return Verdict("neither an entry nor an answer", Action.QUARANTINE)
        if self._is_answered(self._queue, entry.id):
            return None
        unanswered = Verdict("committed, but without a response, and no result to publish", Action.ANSWER)
        return newer(self._queue.path(State.DONE, name), Submission) or unanswered

    def _answered(self, name: str) -> Verdict | None:
        """Judge an answer, or its digest."""
        if name.endswith(DIGEST):
            gone = is_digest_of_nothing(self._queue.path(State.DONE, name))
            return Verdict("the digest of an answer that is gone", Action.REMOVE) if gone else None
        id_ = name.removesuffix(ids.response_name(""))
        if not ids.is_refusal(name) and not fsops.exists(self._queue.path(State.DONE, ids.done_name(id_))):
            return Verdict("a response whose entry is gone: what retention was about to remove", Action.REMOVE)
        return self._for_its_owner(name)

    def _for_its_owner(self, name: str) -> Verdict | None:
        """Look whether an answer can be read by its owner, and changed by nobody but us."""
        path = self._queue.path(State.DONE, name)
        found, directory = fsops.rights(path), fsops.rights(self._queue.path(State.DONE))
        if found is None or directory is None or self.spool.answers.is_fine(found, directory):
            return None
        owner = self.spool.owner_of(name)
        why = self.spool.answers.what_is_wrong(found, owner[0], directory) if owner else ""
        return Verdict(why, Action.LET_IN) if why else None

    def _is_answered(self, queue: Queue, id_: str) -> bool:
        """Tell whether there is a response, or a result that becomes one; that one goes when the response is there."""
        response = queue.path(State.DONE, ids.response_name(id_))
        return fsops.exists(response) or id_ in queue.results.waiting() or fsops.exists(response)

    def _in_progress(self, name: str) -> Verdict | None:
        entry = ids.parse_entry(name)
        if entry is None or ids.done_name(entry.id) != name:
            return Verdict("not a side file", Action.QUARANTINE)
        if fsops.exists(self._queue.path(State.DONE, ids.response_name(entry.id))):
            return Verdict("a side file of what is answered", Action.REMOVE)
        if self._is_young(f"progress/{name}") or self._queue.locate(entry.id):
            return None
        return Verdict("a side file of a submission that is gone", Action.REMOVE)

    def _in_ids(self, name: str) -> Verdict | None:
        if not ids.is_id(name):
            return Verdict("not an id", Action.QUARANTINE)
        try:
            fsops.noted(self._queue.path("ids", name))
        except OSError:
            return Verdict("no note of whose an id is", Action.QUARANTINE)
        if self._is_young(f"ids/{name}") or self._queue.locate(name):
            return None
        return Verdict("the id of a submission that is gone", Action.REMOVE)

    def _in_tmp(self, queue: Queue, directory: str, name: str) -> Verdict | None:
        if OURS["tmp"].fullmatch(name):
            return None
        path = f"{directory}/{name}"
        if result := ids.parse_result(name):
            return self._result(queue, path, result)
        if not ids.is_private(name):
            return Verdict("not a private file of spoold's", Action.QUARANTINE)
        return None if self._is_young(path) else Verdict("what a process wrote that died", Action.REMOVE)

    def _result(self, queue: Queue, path: str, result: Entry) -> Verdict | None:
        place = queue.locate(result.id, result)
        if place is None:
            return None if self._is_young(path) else Verdict("the result of what is gone", Action.REMOVE)
        state, entry = place
        if state is State.DONE and fsops.exists(queue.path(State.DONE, ids.response_name(result.id))):
            return None if self._is_young(path) else Verdict("a second name of a response", Action.REMOVE)
        if state is not State.DONE and result.attempt < entry.attempt:
            return Verdict("the result of an attempt that was lost", Action.REMOVE)
        return None

    def _in_builds(self, state: State, name: str) -> Verdict | None:
        entry = ids.parse_entry(name)
        path = self._builds.path(state, name)
        if entry is None or not BUILD.fullmatch(entry.id) or self._builds.entry_path(state, entry) != path:
            return Verdict("not the name of a build", Action.QUARANTINE)
        return undecodable(path, Dependencies)

    def _in_builds_done(self, name: str) -> Verdict | None:
        id_ = name.removesuffix(ids.response_name(""))
        if id_ != name:
            return undecodable(self._builds.path(State.DONE, name), BuildRecord)
        id_ = name.removesuffix(".json")
        if not BUILD.fullmatch(id_) or ids.done_name(id_) != name:
            return Verdict("neither a build nor its result", Action.QUARANTINE)
        if self._is_answered(self._builds, id_):
            return None
        unfinished = Verdict("a build that ended without a result: all who want it wait", Action.QUARANTINE)
        return newer(self._builds.path(State.DONE, name), Dependencies) or unfinished

    def _is_young(self, path: str) -> bool:
        changed = fsops.mtime(os.path.join(self.spool.root, path))
        return changed is None or self.spool.clock.file_system() - changed < ABANDONED
