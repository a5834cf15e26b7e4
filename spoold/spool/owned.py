"""The queue of submissions, which have owners.

Spec: spool-layout.md, "Names". The name of an entry tells its owner. A process that knows only the id finds the owner
in ``ids/``. There each submission on its way has a symbolic link to a uid.
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

MOST_OWNERS = 1000  # owners whose last note is remembered
UNKNOWN = "-"  # stands in ids/ for the owner of an entry whose name tells none


class OwnedQueue(Queue):
    """The submissions below ``root``. ``answers`` writes their results, for their owners to read."""

    def __init__(self, root: str, attempts: int, pause: float = 0.0, answers: Answers | None = None) -> None:
        super().__init__(root, Kind.SUBMISSION, attempts, pause, answers)
        self._last: dict[str, str] = {}  # path of the last note that this process made for each owner

    def wish(self, entry: Entry) -> str:
        """Return the path at which the holder of an entry is asked to end it: a second name of the entry."""
        return self.private(Private.WISH, entry.id)

    def ask_to_end(self, entry: Entry) -> bool:
        """Ask the holder of an entry in ``running/`` to end it and answer. Return False where nobody holds it any more.

        A holder that has it under a later attempt is asked as well. A wish that an earlier use of the id left is
        another file.
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
        """Note whose an id is from now on. Return False where another entry has it."""
        path, text = self.path("ids", entry.id), _noted(entry)
        if fsops.note(path, text, like=self._last.get(text, "")):
            if len(self._last) >= MOST_OWNERS:
                self._last.clear()
            self._last[text] = path
            return True
        if self.locate(entry.id) is not None:
            return False
        self.take_over_id(entry)  # the note is of an entry that never came, or is long gone
        return True

    def take_over_id(self, entry: Entry) -> None:
        """Note whose an id is from now on, whatever was noted before."""
        fsops.note(self.path("ids", entry.id), _noted(entry), self.private(Private.ID, secrets.token_hex(8)))

    def note_ids(self) -> None:
        """Make ``ids/`` list all entries on their way, and no others. A kill or a loss of power may leave it different.

        Only the process that takes submissions in may do so, before it takes any.
        """
        entries = {entry.id: entry for entry in self._on_their_way()}
        for entry in entries.values():
            if fsops.noted(self.path("ids", entry.id)) != _noted(entry):
                self.take_over_id(entry)
        for id_ in set(fsops.names(self.path("ids"))) - entries.keys():
            with contextlib.suppress(OSError):  # the check names files that are no notes
                place = self.locate(id_)
                if place is None:
                    fsops.remove(self.path("ids", id_))
                elif place[0] is State.DONE:
                    self.release_id(id_)

    def _on_their_way(self) -> Iterator[Entry]:
        for state in self.kind.on_its_way:
            yield from self.entries(state)

    def release_id(self, id_: str) -> None:
        """Forget whose an id is. Its entry is in ``done/``, where the id alone finds it.

        A process that stalled may come here late. By then an operator may have requeued an entry with the id. Then its
        owner is noted again.
        """
        fsops.remove(self.path("ids", id_))
        if not fsops.exists(self.path(State.DONE, ids.done_name(id_))):
            for entry in self._on_their_way():
                if entry.id == id_:
                    self.take_over_id(entry)

    def _first(self, id_: str) -> Entry | None:
        """Return an entry on its way by its id, as its first attempt. None where there is none: look in ``done/``."""
        text = fsops.noted(self.path("ids", id_))
        return None if text is None else Entry(id_, 1, int(text) if text.isdecimal() else None)


def _noted(entry: Entry) -> str:
    """Return the text that ``ids/`` has for an entry."""
    return UNKNOWN if entry.owner is None else str(entry.owner)
