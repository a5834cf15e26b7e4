"""The queue of submissions, which have owners.

Spec: spool-layout.md, "Names". The name of an entry tells its owner. Whoever knows the id alone finds the owner in
``ids/``, where each submission on its way has a symbolic link to a uid.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

from spoold.host import fsops
from spoold.model import ids
from spoold.model.ids import Entry, Private
from spoold.model.states import Kind, State
from spoold.spool.answers import Answers
from spoold.spool.queue import Queue

MOST_OWNERS = 1000  # of whom it is remembered where they were noted last
UNKNOWN = "-"  # stands in ids/ for the owner of an entry whose name does not tell


class OwnedQueue(Queue):
    """The submissions below ``root``; their results are written by ``answers``, for their owners to read."""

    def __init__(self, root: str, attempts: int, pause: float = 0.0, answers: Answers | None = None) -> None:
        super().__init__(root, Kind.SUBMISSION, attempts, pause, answers)
        self._last: dict[str, str] = {}  # where this process noted each owner last

    def wish(self, entry: Entry) -> str:
        """Return where its holder is asked to end an entry: a second name of it."""
        return self.private(Private.WISH, entry.id)

    def ask_to_end(self, entry: Entry) -> bool:
        """Ask whoever holds an entry in ``running/`` to end it and say what there is; False where nobody does any more.

        Whoever holds it under a later attempt is asked as well. What an earlier use of the id left is another file.
        """
        wish, path = self.wish(entry), self.entry_path(State.RUNNING, entry)
        try:
            if not fsops.publish(path, wish):
                fsops.remove(wish)
                return fsops.publish(path, wish)
        except FileNotFoundError:
            return False
        return True

    def _take_id(self, entry: Entry) -> bool:
        """Note whose an id is from now on; False where another has it."""
        path, text = self.path("ids", entry.id), _noted(entry)
        if fsops.note(path, text, like=self._last.get(text, "")):
            if len(self._last) >= MOST_OWNERS:
                self._last.clear()
            self._last[text] = path
            return True
        if self.locate(entry.id) is not None:
            return False
        self.take_over_id(entry)  # from one whose entry never came, or is long gone
        return True

    def take_over_id(self, entry: Entry) -> None:
        """Note whose an id is from now on, whatever was noted before."""
        fsops.note(self.path("ids", entry.id), _noted(entry), self.private(Private.ID, secrets.token_hex(8)))

    def note_ids(self) -> None:
        """Have ``ids/`` tell of all that is on its way, and of nothing else, as a kill or a loss of power may leave it.

        Only whoever takes submissions in may do so, and before it does.
        """
        entries = {entry.id: entry for entry in self._on_their_way()}
        for entry in entries.values():
            if fsops.noted(self.path("ids", entry.id)) != _noted(entry):
                self.take_over_id(entry)
        for id_ in set(fsops.names(self.path("ids"))) - entries.keys():
            with contextlib.suppress(OSError):  # what is no note is named by the check
                place = self.locate(id_)
                if place is None:
                    fsops.remove(self.path("ids", id_))
                elif place[0] is State.DONE:
                    self.release_id(id_)

    def _on_their_way(self) -> Iterator[Entry]:
        for state in self.kind.on_its_way:
            yield from self.entries(state)

    def release_id(self, id_: str) -> None:
        """Forget whose an id is: its entry is in ``done/``, where the id alone finds it.

        Whoever comes late, since it stalled, may find the id in use again, by what was requeued. That is noted anew.
        """
        fsops.remove(self.path("ids", id_))
        if not fsops.exists(self.path(State.DONE, ids.done_name(id_))):
            for entry in self._on_their_way():
                if entry.id == id_:
                    self.take_over_id(entry)

    def _first(self, id_: str) -> Entry | None:
        """Return an entry on its way by its id, None where there is none of that id: then it can be in ``done/``."""
        text = fsops.noted(self.path("ids", id_))
        return None if text is None else Entry(id_, 1, int(text) if text.isdecimal() else None)


def _noted(entry: Entry) -> str:
    """Return what ``ids/`` has of an entry."""
    return UNKNOWN if entry.owner is None else str(entry.owner)
