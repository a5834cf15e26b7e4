"""Answering: what needs no sandbox is answered at once, or waits in ``new/`` until there is room for its answer.

Spec: spool-layout.md, "Shares" and "Overload". ``answers`` has what is said. There must be room on the disk, and in the
owner's share. Not thread-safe.
"""

from __future__ import annotations

from spoold.actors.executor.answers import failed, listed
from spoold.actors.executor.ending import Ending
from spoold.actors.executor.held import Held
from spoold.actors.executor.ready import Place
from spoold.host.persons import Persons
from spoold.model.ids import Entry
from spoold.model.response import Response
from spoold.model.states import State
from spoold.model.submission import Submission
from spoold.spool.builds import BuildRecord, BuildStore
from spoold.spool.store import Spool
from spoold.upkeep.floor import Floor
from spoold.upkeep.shares import Shares

RELEASED = 16  # answers of one owner that are given at once when there is room for them


class Answering:
    """The answers of one executor that need no sandbox."""

    def __init__(
        self, spool: Spool, builds: BuildStore, ending: Ending, *, floor: Floor, shares: Shares, persons: Persons
    ) -> None:
        self._spool, self._builds, self._ending = spool, builds, ending
        self._floor, self._shares, self._persons = floor, shares, persons
        self._held = Held()

    def __contains__(self, entry: Entry) -> bool:
        """Tell whether an entry waits here for room."""
        return entry in self._held

    def __bool__(self) -> bool:
        """Tell whether any waits here for room."""
        return bool(self._held)

    def answer(self, place: Place, submission: Submission, build: BuildRecord | None) -> None:
        """Answer a submission whose ``build`` failed, or that needs none; or have it wait here for room.

        Raises :class:`LeaseLostError` where another executor has it, and :class:`OSError`.
        """
        if not self.has_room(submission.Spool.uid):
            self._hold(place, submission.Spool.uid)
            return
        response = listed(submission, self._builds) if build is None else failed(submission, build.result.phase)
        self.finish(place, submission, response)

    def has_room(self, owner: int) -> bool:
        """Tell whether the disk and the owner's share have room for one more answer; say so where the share has not."""
        if not self._shares.may_begin(owner):
            self._shares.tell(owner, "answers wait")
            return False
        return not self._floor.reached()

    def _hold(self, place: Place, owner: int) -> None:
        """Let an answer wait in ``new/``: a failed build is forgotten, and what waits for it would lose attempts."""
        if place.state is State.BUILDING:
            self._spool.queue.claim(place.entry, State.BUILDING, State.RUNNING)
            self._spool.queue.give_back(place.entry, State.RUNNING, place.entry.attempt)
        self._held.add(self._persons.of(owner), place.entry)

    def finish(self, place: Place, submission: Submission, response: Response) -> None:
        """Claim an entry and end it; a full disk puts it back, and it loses no attempt. Raises like ``answer``."""
        entry = place.entry
        self._spool.queue.claim(entry, place.state, State.RUNNING)
        try:
            self._ending.finish(entry, submission, response)
        except OSError:
            self._spool.queue.give_back(entry, State.RUNNING, entry.attempt)
            raise

    def release(self) -> list[Entry]:
        """Let some go on whose owners have room now, and return them: they are in ``new/``."""
        if not self._held or self._floor.reached():
            return []
        return self._held.release(self._shares.may_begin, RELEASED)
