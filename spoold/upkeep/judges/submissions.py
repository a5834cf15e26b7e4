"""The judge of submissions: their entries, their answers, and their files in other directories.

Spec: spool-layout.md, "States" and "Check and repair". After a crash an entry may have two names. The later one counts.
The owner of an answer must be able to read it, and nobody may change it.
"""

from __future__ import annotations

import msgspec

from spoold.host import attributes, fsops
from spoold.model import formats, ids
from spoold.model.errors import NewerFormatError
from spoold.model.ids import Entry, Private
from spoold.model.states import Kind, State
from spoold.model.submission import Submission
from spoold.spool.answers import DIGEST, is_digest_of_nothing
from spoold.spool.store import Spool
from spoold.upkeep.judges.evidence import is_answered, is_young
from spoold.upkeep.unexplained import Action, Verdict, left, newer


class SubmissionJudge:
    """Judges the files that belong to submissions, in one ``spool``. A verdict is None where a file is fine."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._queue = spool.queue

    def in_incoming(self, name: str) -> Verdict | None:
        """Judge a name in the drop box. It is a client's."""
        if not ids.is_upload_in_progress(name) or is_young(self._spool, f"incoming/{name}"):
            return None
        return Verdict("a client's upload that stopped before its end", Action.LEAVE)

    def in_state(self, state: State, name: str) -> Verdict | None:
        """Judge an entry on its way."""
        entry = ids.parse_entry(name)
        path = self._queue.path(state, name)
        if entry is None or self._queue.entry_path(state, entry) != path:
            return Verdict("not the name of an entry", Action.QUARANTINE)
        if later := self._later(state, entry):
            double = Verdict(f"the same submission is in {later} too, a later state, which counts", Action.QUARANTINE)
            return newer(path, Submission) or double
        return self._unreadable(path, entry.id)

    def _later(self, state: State, entry: Entry) -> str:
        """Return where else a submission is, under the name that counts, "" for nowhere. A crash can leave two."""
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
        return Verdict("its name says another submission than it holds", Action.ANSWER)

    def in_done(self, name: str) -> Verdict | None:
        """Judge an entry, an answer, or the digest of an answer."""
        if name.endswith((ids.response_name(""), ".refused.json", DIGEST, Private.OUTPUTS)):
            return self._answered(name)
        if ids.is_trial(name):
            died = Verdict("left by a doctor that died", Action.REMOVE)
            return None if is_young(self._spool, f"done/{name}") else died
        entry = ids.parse_entry(name)
        if entry is None or ids.done_name(entry.id) != name:
            return Verdict("neither an entry nor an answer", Action.QUARANTINE)
        if is_answered(self._queue, entry.id):
            return None
        unanswered = Verdict("committed, with neither a response nor a result to publish", Action.ANSWER)
        return newer(self._queue.path(State.DONE, name), Submission) or unanswered

    def _answered(self, name: str) -> Verdict | None:
        """Judge an answer, or its digest."""
        if name.endswith(DIGEST):
            gone = is_digest_of_nothing(self._queue.path(State.DONE, name))
            return Verdict("the digest of an answer that is gone", Action.REMOVE) if gone else None
        id_ = name.removesuffix(ids.response_name("")).removesuffix(Private.OUTPUTS)
        if not ids.is_refusal(name) and not fsops.exists(self._queue.path(State.DONE, ids.done_name(id_))):
            if not name.endswith(Private.OUTPUTS):
                return Verdict("a response whose entry is gone: retention was about to remove it", Action.REMOVE)
            if fsops.exists(self._queue.path(State.DONE, ids.response_name(id_))):
                return None  # the tar goes after that
            return Verdict("returned files whose response is gone: retention was about to remove them", Action.REMOVE)
        return self._for_its_owner(name)

    def _for_its_owner(self, name: str) -> Verdict | None:
        """Judge whether its owner can read an answer, and nobody but us can change it."""
        path = self._queue.path(State.DONE, name)
        found, directory = attributes.rights(path), attributes.rights(self._queue.path(State.DONE))
        if found is None or directory is None or self._spool.answers.is_fine(found, directory):
            return None
        owner = self._spool.owner_of(name)
        why = self._spool.answers.what_is_wrong(found, owner[0], directory) if owner else ""
        return Verdict(why, Action.LET_IN) if why else None

    def in_progress(self, name: str) -> Verdict | None:
        """Judge a side file."""
        entry = ids.parse_entry(name)
        if entry is None or ids.done_name(entry.id) != name:
            return Verdict("not a side file", Action.QUARANTINE)
        if fsops.exists(self._queue.path(State.DONE, ids.response_name(entry.id))):
            return Verdict("a side file of a submission that is answered", Action.REMOVE)
        if is_young(self._spool, f"progress/{name}") or self._queue.locate(entry.id):
            return None
        return Verdict("a side file of a submission that is gone", Action.REMOVE)

    def in_ids(self, name: str) -> Verdict | None:
        """Judge a note of who owns an id."""
        if not ids.is_id(name):
            return Verdict("not an id", Action.QUARANTINE)
        try:
            fsops.noted(self._queue.path("ids", name))
        except OSError:
            return Verdict("not a link that names the owner of an id", Action.QUARANTINE)
        if is_young(self._spool, f"ids/{name}") or self._queue.locate(name):
            return None
        return Verdict("the id of a submission that is gone", Action.REMOVE)
