"""Answering: a submission that needs no sandbox is answered at once, or waits in ``new/`` for room for its answer.

Spec: spool-layout.md, "Shares" and "Overload". ``answers`` makes the answers. The disk and the owner's share must have
room for one. The executor's steps do all of this, and must not wait for the host. An entry that cannot be given back is
held until a later step can do so. No other answer is begun meanwhile. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from spoold.actors.executor.answers import built, failed, listed
from spoold.actors.executor.ending import Ending
from spoold.actors.executor.held import Held
from spoold.actors.executor.ready import Place
from spoold.host.log import Log
from spoold.host.persons import Persons
from spoold.model.ids import Entry
from spoold.model.response import Response, of_dependencies
from spoold.model.states import Role, State
from spoold.model.submission import Submission
from spoold.spool.builds import BuildRecord, BuildStore
from spoold.spool.holding import Holder
from spoold.spool.lease import Heartbeat, Lease
from spoold.spool.store import Spool
from spoold.upkeep.floor import Floor
from spoold.upkeep.shares import Shares

log = Log(Role.EXECUTOR)
RELEASED = 16  # answers of one owner that are given at once when there is room for them


class Answering:
    """The answers that one executor gives without a sandbox."""

    def __init__(
        self,
        spool: Spool,
        builds: BuildStore,
        ending: Ending,
        *,
        floor: Floor,
        shares: Shares,
        persons: Persons,
        heartbeat: Heartbeat,
    ) -> None:
        self._spool, self._builds, self._ending = spool, builds, ending
        self._holder = Holder(spool.queue, heartbeat, None, log)
        self._floor, self._shares, self._persons = floor, shares, persons
        self._held = Held()
        self.answered = float("-inf")  # when the last answer was given, on the monotonic clock

    def __contains__(self, entry: Entry) -> bool:
        """Tell whether an entry waits here for room."""
        return entry in self._held

    def __bool__(self) -> bool:
        """Tell whether any entry waits here, for room or to be given back."""
        return bool(self._held) or self._holder.keeps

    def answer(self, place: Place, submission: Submission, build: BuildRecord | None) -> None:
        """Answer a submission whose ``build`` failed or is all that it asks for, or that needs no build (None).

        Where there is no room for the answer, the submission waits here.
        """
        if not self.has_room(submission.Spool.uid):
            self._have_it_wait(place, submission.Spool.uid)
            return
        if build is None:
            response = listed(submission, self._builds)
        else:
            phase = of_dependencies(build.result.phase, cached=place.is_unclaimed)
            response = built(submission, build.build_id, phase) if build.result.shell else failed(submission, phase)
        self.finish(place, submission, response)

    def has_room(self, owner: int) -> bool:
        """Tell whether the disk and the owner's share have room for one more answer. Log a share that has none."""
        if self._holder.keeps:
            return False
        if not self._shares.may_begin(owner):
            self._shares.tell(owner, "answers wait")
            return False
        return not self._floor.reached()

    def _have_it_wait(self, place: Place, owner: int) -> None:
        """Let an answer wait in ``new/``.

        In ``building/`` it would lose attempts: once its failed build is forgotten, it looks like a dead entry.
        """
        if place.state is not State.BUILDING:
            self._wait(place.entry, owner)
        elif not self._holder.keeps:  # otherwise it would be one more to give back. A scan finds it again

            def work(_: Lease) -> None:
                self._give_back(place.entry)
                self._wait(place.entry, owner)

            self._hold(place, work)

    def _wait(self, entry: Entry, owner: int) -> None:
        self._held.add(self._persons.of(owner), entry)

    def finish(self, place: Place, submission: Submission, response: Response) -> None:
        """Claim an entry and end it. When the disk is full, the entry is put back and loses no attempt."""
        self._hold(place, lambda _: self._ending.finish(place.entry, submission, response))
        self.answered = self._spool.clock.monotonic()

    def _hold(self, place: Place, work: Callable[[Lease], None]) -> None:
        back = partial(self._give_back, place.entry)
        self._holder.hold(place.entry, place.state, State.RUNNING, work, give_back=back)

    def _give_back(self, entry: Entry) -> None:
        self._spool.queue.give_back(entry, State.RUNNING, entry.attempt)

    def give_back_kept(self) -> None:
        """Give back the entries that could not be given back before."""
        self._holder.give_back_kept()

    def close(self) -> None:
        """Let go of the entries that are held."""
        self._holder.close()

    def release(self) -> list[Entry]:
        """Let some entries go on whose owners have room now. Return these entries, which are in ``new/``."""
        if not self._held or self._holder.keeps or self._floor.reached():
            return []
        return self._held.release(self._shares.may_begin, RELEASED)
