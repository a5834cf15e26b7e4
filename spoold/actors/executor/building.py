"""Building: submissions wait in ``building/`` until their build has ended, or their time to wait is over.

Spec: spool-layout.md, "Transitions". A submission that has to wait is claimed into ``building/``. Its build is filed,
unless it was already. The submission then holds neither lease nor slot, and its owner is shown what it waits for. When
the Build store tells that the build has ended, the submission is looked at again. If ``limits.dependencies.time``
passes before that, the submission ends with a time limit. Not thread-safe.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable
from typing import Literal

from spoold.actors.executor.answering import Answering
from spoold.actors.executor.answers import answered
from spoold.actors.executor.ready import Place
from spoold.actors.executor.seen import AllSeen
from spoold.actors.executor.waits import BuildState, Wait, Waits
from spoold.host import fsops
from spoold.host.log import Log
from spoold.host.persons import Persons
from spoold.model.errors import LeaseLostError, NewerFormatError
from spoold.model.ids import Entry
from spoold.model.response import Outcome, Response, Status, of_dependencies, unmeasured_phase
from spoold.model.states import Role, State
from spoold.model.submission import Dependencies, Request, Submission
from spoold.spool.builds import BuildStore
from spoold.spool.newer import LeftAlone
from spoold.spool.progress import Progress
from spoold.spool.store import Spool
from spoold.upkeep.floor import Floor

log = Log(Role.EXECUTOR)
Found = Literal["queued", "building", "missing", "newer"]  # the state of a build that has not ended
SHOWN = 64  # submissions, of those whose build has begun, that one step shows
FETCHING = 1.0  # seconds between two looks at how much builds have fetched
SELDOM = 20.0  # owners are not told again for this many times as long as it took to tell them
ENDS = 16  # waits that one step ends: each is synced several times
LONG = 0.1  # seconds after which a step ends no more waits, so that hints are followed in between
ENDS_AGAIN = 10.0  # seconds until another try to end a wait whose answer had no room


class Building:
    """The submissions of one executor that wait for builds. When a build has ended, they go to ``seen``."""

    def __init__(
        self,
        spool: Spool,
        builds: BuildStore,
        *,
        seen: AllSeen,
        answering: Answering,
        floor: Floor,
        newer: LeftAlone,
        persons: Persons,
    ) -> None:
        self._spool, self._builds = spool, builds
        self._seen, self._answering, self._floor, self._newer = seen, answering, floor, newer
        self._waits = Waits(persons.of)
        self._unshown: deque[Entry] = deque()  # owners do not know yet that these builds have begun or go on
        self._telling = 0.0  # seconds that telling them took so far
        self._next_look = 0.0

    def __contains__(self, entry: Entry) -> bool:
        """Tell whether a submission waits here."""
        return entry in self._waits

    def has_work(self) -> bool:
        """Tell whether there is something to do already, in the next step."""
        return bool(self._unshown) or self._waits.is_any_over(self._spool.clock.monotonic())

    @property
    def next_end(self) -> float | None:
        """Return when the next wait may be over, on the monotonic clock."""
        return self._waits.next_end

    def clear(self) -> None:
        """Forget all waits: the pins have changed, and with them the ids of builds. The next scan finds them again."""
        self._waits.clear()

    # -- from the first look to the end of the build

    def wait(
        self,
        place: Place,
        submission: Submission,
        request: Request,
        build: Dependencies,
        found: Found,
    ) -> None:
        """Let a submission wait for a build in the state ``found``.

        Raises :class:`LeaseLostError` where another executor has it, and :class:`OSError`.
        """
        if place.state is State.NEW:
            self._spool.queue.claim(place.entry, State.NEW, State.BUILDING)
            log.info(
                "waiting for the build of its dependencies", submission=place.entry.id, attempt=place.entry.attempt
            )
        if found == "missing":
            self._builds.request(build)
        until = self._until(place, request)
        state: BuildState = "queued" if found in ("queued", "missing") else "building"
        wait = Wait(place.entry, sys.intern(build.build_id), state, until, submission.Spool)
        self._waits.add(wait)
        self._write_wait(wait)
        self._take_result(build.build_id)  # the build may have ended while we filed ourselves

    def _until(self, place: Place, request: Request) -> float | None:
        """Return when the client waits no longer, None for never. Time with another build or executor counts too."""
        asked = request.limits.dependencies
        if asked is None or asked.time is None:
            return None
        return self._spool.clock.monotonic() + asked.time - self._waited(place)

    def _waited(self, place: Place) -> float:
        """Return the seconds since an entry began to wait."""
        began = fsops.mtime(self._spool.queue.entry_path(State.BUILDING, place.entry))
        return 0.0 if began is None else max(0.0, self._spool.clock.file_system() - began)

    def _write_wait(self, wait: Wait) -> None:
        response = Response(status=Status.INSTALLING_DEPENDENCIES, waiting_for=wait.waiting_for)
        Progress(self._spool, wait.entry, response, wait.origin, self._floor.reached).show()

    def begun(self, build_id: str) -> None:
        """Note that a build has begun. The next steps show that to the owners who wait for it."""
        self._unshown.extend(self._waits.begun(build_id))

    def show_some(self) -> None:
        """Show some owners that their build has begun, or how much it has fetched."""
        began = self._spool.clock.monotonic()
        if not self._unshown and began >= self._next_look:
            self._look_at_fetching(began)
        for _ in range(min(SHOWN, len(self._unshown))):
            if wait := self._waits.get(self._unshown.popleft()):
                self._write_wait(wait)
        self._telling += self._spool.clock.monotonic() - began

    def _look_at_fetching(self, now: float) -> None:
        """Find out how much builds have fetched, and whom to show it. The more owners there are, the less often."""
        self._next_look, self._telling = now + max(FETCHING, SELDOM * self._telling), 0.0
        if not self._waits:
            return
        for build_id, fetching in self._builds.fetching.changed().items():
            self._unshown.extend(self._waits.fetched(build_id, fetching))

    def take_results(self, build_ids: Iterable[str] | None = None) -> None:
        """Let submissions whose build has ended be looked at again. ``build_ids`` are the builds, None means all."""
        for build_id in self._waits.builds() if build_ids is None else build_ids:
            self._take_result(build_id)

    def _take_result(self, build_id: str) -> None:
        if self._is_built(build_id):
            for wait in self._waits.end(build_id):
                self._seen.see(Place(State.BUILDING, wait.entry), wait.uid)

    def _is_built(self, build_id: str) -> bool:
        try:
            return self._builds.result(build_id) is not None
        except NewerFormatError as error:
            self._newer.meet(error)
            return False

    # -- where the build takes too long

    def end_overdue(self) -> None:
        """End some of the waits whose time is over."""
        began = last = self._spool.clock.monotonic()
        for _ in range(ENDS):
            wait = self._waits.overdue(began)
            if wait is None:
                return
            if self._answering.has_room(wait.uid):
                self._end(Place(State.BUILDING, wait.entry))
            else:
                self._waits.add(wait._replace(until=began + ENDS_AGAIN))
            last, before = self._spool.clock.monotonic(), last
            self._waits.ended(last - before)
            if last - began >= LONG:
                return

    def _end(self, place: Place) -> None:
        said = "limits.dependencies.time passed before the build ended\n"
        phase = of_dependencies(unmeasured_phase(Outcome.TIME_LIMIT, self._waited(place), said), cached=False)
        try:
            submission = self._spool.read(*place)  # before the claim: an error then leaves the entry where it is
            response = answered(submission, Status.DEPENDENCIES_FAILED, dependencies=phase)
            self._answering.finish(place, submission, response)
        except (LeaseLostError, NewerFormatError):
            return
        except OSError as error:
            log.error("could not end a wait that took too long; trying again", submission=place.entry.id, error=error)
