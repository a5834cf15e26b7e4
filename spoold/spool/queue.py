"""Entries on disk and how they move: the common part of the spool of submissions and the Build store.

Spec: spool-layout.md, "States", "Transitions", "Durability". An entry is one file. The directory that it is in is its
state. One rename moves it, and of any number of processes only one can do that. The last move is a commit, see
``results``. Nothing here decides anything.

Builds have no owner. Submissions have one, see ``owned``.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator

from spoold.config import SpoolSettings
from spoold.host import fsops
from spoold.host.clock import Clock
from spoold.model import ids
from spoold.model.errors import LeaseLostError
from spoold.model.ids import Entry, Private
from spoold.model.states import Kind, State
from spoold.spool.answers import Answers
from spoold.spool.results import Results

SLOW = 0.5  # seconds. After a slower claim the lease would begin too far in the past
LONGEST_PAUSE = 300.0  # seconds between two attempts
ENDERS = 2  # workers that may take an entry, one after the other, to end it after its last attempt
REQUEUED = 2  # looks at an id that is nowhere. Between two looks an operator may have put its entry back


class Queue:
    """The entries of one kind below ``root``: a directory for each state of their flow, and ``tmp/``.

    ``answers`` writes the results for clients. All other results are for all daemons.
    """

    def __init__(
        self, root: str, kind: Kind, attempts: int, pause: float = 0.0, answers: Answers | None = None
    ) -> None:
        self.root = root
        self.kind = kind
        self.attempts = attempts
        self.pause = pause  # seconds before the second attempt
        self.results = Results(self, answers or Answers(SpoolSettings()))

    def path(self, directory: str, name: str = "") -> str:
        """Return the path of ``name`` in a directory of this queue, whether it is a state's or another."""
        return f"{self.root}/{directory}/{name}"  # os.path.join takes four times as long, twenty times in each job

    def entry_path(self, state: State, entry: Entry) -> str:
        """Return where ``entry`` is while it is in ``state``."""
        return self.path(state, ids.entry_name(state, entry))

    def private(self, kind: Private, stem: str) -> str:
        """Return the path under which a file of that kind is written before it is shown."""
        return self.path("tmp", stem + kind)

    def wish(self, entry: Entry) -> str:  # noqa: ARG002 - see OwnedQueue
        """Return the path at which the holder of an entry is asked to end it, "" where nobody ever asks."""
        return ""

    def attempts_in(self, state: State) -> list[int]:
        """Return the attempts that an entry in ``state`` can have, lowest first.

        A worker that ends the entry after the last one raises the number, and so may the next worker. A cancel takes
        the entry to ``running/`` under an attempt of its own (``upkeep.cancel``).
        """
        if state is State.DONE:
            return [1]
        attempts = [*range(1, self.attempts + ENDERS + 1)]
        return [*attempts, ids.CANCEL] if state is State.RUNNING else attempts

    def entries(self, state: State) -> list[Entry]:
        """Return the entries in ``state``, in no particular order."""
        return [entry for name in fsops.names(self.path(state)) if (entry := ids.parse_entry(name))]

    def add(self, entry: Entry, data: bytes, *, state: State = State.NEW, sync: bool = True) -> bool:
        """Store a first entry durably (its name only with ``sync``). Return False where that id is used already.

        Several processes may do so at once. Each writes under a private name of its own.
        """
        private = self.prepare(entry, data)
        with gone_on_error(private):
            added = self.add_prepared(entry, private, state=state)
            if sync:
                fsops.sync_directory(self.path(state))
        fsops.remove(private)
        return added

    def prepare(self, entry: Entry, data: bytes, *, sync: bool = True) -> str:
        """Write an entry under a private name before it is added, synced or not. Return that name's path."""
        private = self.private(Private.ENTRY, f"{entry.id}.{secrets.token_hex(4)}")
        fsops.write_private(private, data, sync=sync)
        return private

    def add_prepared(self, entry: Entry, private: str, *, state: State = State.NEW) -> bool:
        """Show a synced private file as a first entry. The private name stays. Return False where that id is used."""
        return (state is State.DONE or self._take_id(entry)) and fsops.publish(private, self.entry_path(state, entry))

    def _take_id(self, entry: Entry) -> bool:  # noqa: ARG002 - see OwnedQueue
        """Note whose an id is from now on. Return False where another entry has it. Builds belong to nobody."""
        return True

    def release_id(self, id_: str) -> None:
        """Forget whose an id is, once its entry is in ``done/``."""

    def _first(self, id_: str) -> Entry | None:
        """Return an entry on its way by its id, as its first attempt. None where there is none: look in ``done/``."""
        return Entry(id_, 1)

    def read(self, state: State, entry: Entry) -> bytes:
        """Return an entry's bytes. Raises :class:`LeaseLostError` where the entry is not, or no longer, there."""
        data = fsops.read(self.entry_path(state, entry))
        if data is None:
            raise LeaseLostError(self.entry_path(state, entry))
        return data

    def claim(self, entry: Entry, source: State, target: State) -> str:
        """Move an entry on and take the lease. Return its path. Raises :class:`LeaseLostError` where another was first.

        The mtime is set before the move, since a long wait would look like a dead worker the moment the entry is
        claimed. It is set again after the move if that was slow. If the host fails to set it again, the entry is ours
        all the same.
        """
        old, new = self.entry_path(source, entry), self.entry_path(target, entry)
        began = time.monotonic()
        if not (fsops.touch(old) and fsops.move(old, new)):
            raise LeaseLostError(old)
        with contextlib.suppress(OSError):
            if time.monotonic() - began > SLOW and not fsops.touch(new):
                raise LeaseLostError(old)
        return new

    def give_back(self, entry: Entry, source: State, attempt: int) -> bool:
        """Put an entry back to the start, for ``attempt``. Return False where it is no longer there."""
        back = entry._replace(attempt=attempt)
        return fsops.move(self.entry_path(source, entry), self.entry_path(State.NEW, back))

    def retry(self, entry: Entry, source: State) -> bool:
        """Put an entry back for its next attempt, which is not due at once. Return False where it is no longer there.

        The pause begins at its mtime, which is set before the rename. So nobody sees the entry without the pause. It is
        set to now, which every daemon may do. Only the owner of the file could set another time.
        """
        return fsops.touch(self.entry_path(source, entry)) and self.give_back(entry, source, entry.attempt + 1)

    def due(self, entry: Entry, mtime: float, clock: Clock) -> float:
        """Return the moment on the monotonic clock at which an entry with that mtime in ``new/`` may be tried.

        The mtime may be far in the future, if a clock was stepped. Still the wait is never longer than the pause before
        such an attempt.
        """
        pause = self._pause_before(entry.attempt)
        return clock.monotonic() + min(mtime + pause - clock.file_system(), pause)

    def _pause_before(self, attempt: int) -> float:
        return min(LONGEST_PAUSE, self.pause * 2.0 ** (attempt - 2))

    def fence(self, entry: Entry, state: State) -> Entry | None:
        """Take an entry away from its holder by raising the attempt where it is. Return None where it is gone.

        A worker that ends an entry after its last attempt does this too, and if that worker stalls, so does the next
        one. Beyond that the number stays. Otherwise a fault that ends each of these workers would raise it for ever.
        """
        if entry.attempt >= self.attempts + ENDERS:
            return entry
        mine = entry._replace(attempt=entry.attempt + 1)
        taken = fsops.move(self.entry_path(state, entry), self.entry_path(state, mine))
        return mine if taken and fsops.touch(self.entry_path(state, mine)) else None

    def locate(self, id_: str, like: Entry | None = None) -> tuple[State, Entry] | None:
        """Find the entry with that id, and its state. None for an unused id.

        A caller that has an entry or a result ``like`` it needs no note in ``ids/``. Entries move on during the look. A
        look in the order of the flow misses only an entry that is put back meanwhile. That can happen ``attempts - 1``
        times in an entry's life, and once more if an operator requeues it. So one look more than that is proof.
        """
        looks = missed = 0
        while looks <= self.attempts and missed < REQUEUED:
            first = Entry(id_, 1, like.owner) if like else self._first(id_)
            for state, entry in self.places(first) if first else ():
                if fsops.exists(self.entry_path(state, entry)):
                    return state, entry
            if fsops.exists(self.path(State.DONE, ids.done_name(id_))):
                return State.DONE, Entry(id_, 1)
            looks += 1
            missed += first is None
        return None

    def places(self, first: Entry) -> Iterator[tuple[State, Entry]]:
        """Yield the places where an entry may be on its way, in the order of the flow."""
        for state in self.kind.on_its_way:
            for attempt in self.attempts_in(state):
                yield state, first._replace(attempt=attempt)


@contextlib.contextmanager
def gone_on_error(private: str) -> Iterator[None]:
    """Remove a private file if the block fails. Otherwise each further try would leave one more, under another name."""
    try:
        yield
    except OSError:
        with contextlib.suppress(OSError):
            fsops.remove(private)
        raise
