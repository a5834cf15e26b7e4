"""Executor: from an accepted submission to its response.

Spec: spool-layout.md, "Transitions". Every submission in ``new/`` is looked at once, for a moment in each step. Where
its build exists it waits in line for a sandbox, unclaimed; where not, it is claimed into ``building/``, its build is
filed, and it holds neither lease nor slot until the Build store tells of the end. What needs no sandbox (a failed
build, a list of packages) is answered at once. ``slots`` has what goes on in a slot, ``line`` has the turns.

An entry of a newer version of spoold stays where it is, for an executor of that version. A submission whose build's
result is of a newer version waits on.

What fails: a sandbox engine that is away, or a disk in trouble, stops the taking of work and costs no attempt; anything
else of ours costs one, and the last one ends with ``INTERNAL_ERROR``. A lost lease cancels the job and is nobody's
error.
"""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec

from spoold.actors.executor.admission import fitted
from spoold.actors.executor.answers import answered, failed, listed
from spoold.actors.executor.held import Held
from spoold.actors.executor.line import Line
from spoold.actors.executor.ready import WAITING, Place, Ready
from spoold.actors.executor.seen import FOUND, TOLD, AllSeen, Seen
from spoold.actors.executor.slots import Slots
from spoold.actors.executor.waits import BuildState, Wait, Waits
from spoold.config import Settings
from spoold.host import fsops
from spoold.host.log import Log
from spoold.host.metrics import ENGINE_READY, READY
from spoold.host.persons import Persons, weights
from spoold.model import ids
from spoold.model.errors import LeaseLostError, NewerFormatError, OperatorError
from spoold.model.ids import Entry, Hint
from spoold.model.job import Runtime
from spoold.model.plan import build_id_of, plan_job
from spoold.model.response import Outcome, Phase, Response, Status
from spoold.model.states import Kind, Role, State
from spoold.model.submission import Dependencies, Origin, Request, Submission
from spoold.sandbox import Sandbox
from spoold.sandbox.lifecycle import EngineMonitor
from spoold.sandbox.sizes import asked
from spoold.spool.builds import BuildRecord, BuildStore
from spoold.spool.newer import LeftAlone
from spoold.spool.recovery import mend
from spoold.spool.store import Progress, Spool
from spoold.upkeep import usage
from spoold.upkeep.shares import Shares

log = Log(Role.EXECUTOR)
BEGUN, BUILT = (Kind.BUILD.directory(state) for state in (State.BUILDING, State.DONE))
WITHOUT_RUNTIME = 0.5  # seconds between two looks for the runtime
BACK_OFF = 1.0  # seconds until the next look when the sandbox engine is away, or somebody's share is used up
FIRST_LOOK = 10.0  # seconds for which the start waits for the engine
LOOKS = 64  # entries that one step looks at
ENDS = 16  # waits that one step ends: each is synced several times
LONG = 0.1  # seconds after which a step looks at no more, and ends no more: hints are followed in between
RELEASED = 16  # answers of one owner that one step lets go on, once there is room for them
ENDS_AGAIN = 10.0  # seconds until a wait is ended whose answer had no room
NOTES = 2.0  # seconds between two notes of who used what


class Executor:
    """One executor process; ``make_sandbox`` is given the runtime that the builder provides."""

    def __init__(self, settings: Settings, make_sandbox: Callable[[Runtime], Sandbox]) -> None:
        self._settings = settings = fitted(settings)
        self._spool = Spool(settings, f"executor-{settings.executor.name}")
        self._builds = BuildStore(settings)
        self._engine = EngineMonitor(make_sandbox)
        self._persons = Persons()
        self._shares = Shares(settings, self._spool, self._persons.of)
        self._seen = AllSeen(self._persons.of)
        self._line = Line(
            self._persons.of,
            self._spool.clock.monotonic,
            self._shares.may_begin,
            memory=settings.executor.memory,
            slots=settings.executor.slots,
        )
        self._line.set_weights(weights(settings.turns.weights))
        self._newer = LeftAlone(log)
        self._slots = Slots(
            settings, self._spool, self._builds, self._engine, self._line, newer=self._newer, shares=self._shares
        )
        self._waits = Waits(self._persons.of)
        self._unshown: deque[Entry] = deque()  # what they wait for has begun, and their owners were not told yet
        self._held: set[int] = set()  # persons whose share is used up
        self._unanswered = Held()
        self._runtime: Runtime | None = None
        self._runtime_seen: fsops.Identity | None = None
        self._next_note = 0.0  # on the monotonic clock

    @property
    def watched(self) -> list[str]:
        """Return the directories, below the spool's root, in which a change is worth a step."""
        return [State.NEW, BEGUN, BUILT]

    def start(self) -> None:
        """Show what an earlier executor committed and could not show, put back what it held; begin to renew leases."""
        mend(self._spool.queue, log)
        self._slots.start()
        self._follow_runtime()
        self._engine.look(FIRST_LOOK)
        if self._runtime is None:
            log.info("waiting for the builder to provide the runtime", path=self._builds.runtime.path)

    def hurry(self) -> None:
        """Put back what runs."""
        self._slots.hurry()

    def stuck(self, patience: float) -> str:
        """Say whether leases are not renewed any more, or a slot is lost."""
        return self._slots.stuck(patience)

    def apply_settings(self, settings: Settings) -> None:
        """Go by other settings; jobs that run keep what they began with."""
        if settings.turns != self._settings.turns:
            self._weigh(settings)
        self._settings = settings = fitted(settings)
        self._shares.apply_settings(settings)
        self._slots.go_by(settings)

    def _weigh(self, settings: Settings) -> None:
        try:
            self._line.set_weights(weights(settings.turns.weights))
        except OperatorError as error:  # a user who went since the daemon read these settings
            log.error("weights stay as they were", error=error)

    def measure(self) -> None:
        """Measure the slots, the line, and the engine."""
        self._slots.measure()
        READY.set(self._line.length)
        ENGINE_READY.set(self._engine.ready.is_set())
        self._engine.measure()

    def stop(self) -> None:
        """Finish the jobs that run, put back what takes longer than ``drain``, take no others, remove the sandboxes."""
        self._slots.stop()
        self._engine.close()

    def step(self, hints: Iterable[Hint] | None = None) -> float:
        """Look at some of what waits; return the seconds after which to scan again, 0 where there is more to look at.

        What ``hints`` name comes into the line before, or everything.
        """
        self._follow_runtime()
        if self._runtime is None:
            return WITHOUT_RUNTIME
        if hints is None:
            self._scan()
        else:
            self._heed(hints)
        self._end_waits()
        self._note_usage()
        self._follow_shares()
        self._show_some()
        self._look_at_some()
        if not self._seen:
            self._newer.tell()
        more = self._seen or self._unshown or self._waits.is_any_over(self._spool.clock.monotonic())
        return 0.0 if more else self._pause()

    def _follow_shares(self) -> None:
        """Let those begin again whose share of the spool has room for answers."""
        self._shares.look()
        self._held = self._line.ask_again()
        for person in self._held:
            self._shares.tell(person, "jobs wait in new/")
        if self._unanswered and not self._slots.is_short():
            for entry in self._unanswered.release(self._shares.may_begin, RELEASED):
                self._seen.see(Place(State.NEW, entry), FOUND)

    def _note_usage(self) -> None:
        """Let `spoolctl top` know who used what; where the disk is in the way, the next one tells."""
        now = self._spool.clock.monotonic()
        if now < self._next_note or (used := self._line.usage()) is None:
            return
        self._next_note = now + NOTES
        with contextlib.suppress(OSError):
            usage.note(self._spool.root, f"executor-{self._settings.executor.name}", used)

    def _pause(self) -> float:
        now = self._spool.clock.monotonic()
        longest = (
            self._settings.spool.scan
            if self._engine.ready.is_set() and not (self._held or self._unanswered)
            else BACK_OFF
        )
        ends = [end - now for end in (self._waits.next_end, self._seen.rests_until) if end is not None]
        return max(0.05, min([longest, *ends]))

    # -- what there is

    def _scan(self) -> None:
        """See all that was not known before, the oldest first: whoever waited for a build is not last because of it."""
        self._persons.look()
        aged = [(mtime, place) for state in WAITING for mtime, place in self._fresh_in(state)]
        for _, place in sorted(aged):
            self._seen.see(place, FOUND)
        self._take_results(self._waits.builds())

    def _heed(self, hints: Iterable[Hint]) -> None:
        for hint in hints:
            entry = ids.parse_entry(hint.name)
            if hint.directory == BUILT:
                self._take_results([hint.name.removesuffix(ids.response_name(""))])
            elif entry and hint.directory == BEGUN:
                self._unshown.extend(self._waits.begun(entry.id))
            elif entry and entry not in self._unanswered:
                place = Place(State.NEW, entry)
                if not self._line.has(place):
                    self._seen.see(place, TOLD)

    def _fresh_in(self, state: State) -> Iterator[tuple[float, Place]]:
        """Yield the entries in ``state`` that were not known before, and their mtimes."""
        queue = self._spool.queue
        present = set(fsops.names(queue.path(state)))
        self._seen.keep_present(state, present)
        self._line.keep_present(state, present)
        for name in present - self._seen.names(state) - self._line.names(state):
            entry = ids.parse_entry(name)
            if entry and entry not in self._waits and entry not in self._unanswered:
                mtime = fsops.mtime(queue.entry_path(state, entry))
                if mtime is not None:
                    yield mtime, Place(state, entry)

    # -- what to do with one submission

    def _look_at_some(self) -> None:
        """Look at a few: an entry is as large as its owner likes, so it may be one."""
        began = last = self._spool.clock.monotonic()
        for _ in range(LOOKS):
            seen = self._seen.take(last)
            if seen is None:
                return
            self._consider(seen)
            last, before = self._spool.clock.monotonic(), last
            self._seen.looked(last - before)
            if last - began >= LONG:
                return

    def _consider(self, seen: Seen) -> None:
        place = seen.place
        try:
            if place.entry.attempt > 1 and not seen.rested and self._rests(place):
                return
            submission = self._spool.read(*place)
            self._route(place, submission)
        except LeaseLostError:
            return  # another executor has it
        except NewerFormatError as error:
            self._newer.meet(error)
            self._seen.leave(place)
        except msgspec.DecodeError as error:
            self._slots.set_aside(place, f"the entry cannot be read: {error}")
        except OSError as error:
            log.error("could not look at an entry; it stays where it is", submission=place.entry.id, error=error)

    def _rests(self, place: Place) -> bool:
        """Let an attempt that is not due yet rest; tell whether it does."""
        if place.state is not State.NEW:
            return False
        mtime = fsops.mtime(self._spool.queue.entry_path(State.NEW, place.entry))
        if mtime is None:
            raise LeaseLostError(place.name)
        clock = self._spool.clock
        due = self._spool.queue.due(place.entry, mtime, clock)
        if due <= clock.monotonic():
            return False
        self._seen.rest(place, due)
        return True

    def _route(self, place: Place, submission: Submission) -> None:
        request = submission.Request
        build_id = self._build_id(request)
        if request is None or build_id is None:
            self._answer(place, submission, None)
            return
        with self._builds.looking():
            found = self._look_for_build(build_id)
            self._builds.uses.note(build_id, submission.Spool.uid)
        if isinstance(found, BuildRecord):
            if found.result.shell:
                self._queue(place, submission, request, found)
            else:
                self._answer(place, submission, found)
            return
        if place.state is State.NEW:
            self._spool.queue.claim(place.entry, State.NEW, State.BUILDING)
            log.info("waits for its dependencies", submission=place.entry.id, attempt=place.entry.attempt)
        if found == "missing":
            pin = self._runtime.nixpkgs[request.nixpkgs] if self._runtime else ""
            self._builds.request(Dependencies(build_id=build_id, expression=request.expression(), nixpkgs=pin))
        asked = request.limits.dependencies
        until = self._spool.clock.monotonic() + asked.time if asked and asked.time else None
        state: BuildState = "queued" if found in ("queued", "missing") else "building"
        wait = Wait(place.entry, sys.intern(build_id), state, until, submission.Spool.uid, submission.Spool.gid)
        self._waits.add(wait)
        self._show(wait)
        self._take_results([build_id])  # it may have ended while we filed ourselves

    def _look_for_build(self, build_id: str) -> BuildRecord | Literal["queued", "building", "missing", "newer"]:
        try:
            return self._builds.look(build_id)
        except NewerFormatError as error:
            self._newer.meet(error)
            return "newer"

    def _show(self, wait: Wait) -> None:
        response = Response(status=Status.INSTALLING_DEPENDENCIES, waiting_for=wait.waiting_for)
        origin = Origin(uid=wait.uid, gid=wait.gid, sha256="", arrival=0)
        Progress(self._spool, wait.entry, response, origin, self._slots.is_short).change()

    def _show_some(self) -> None:
        """Tell some of those who wait for a build that has begun."""
        for _ in range(min(LOOKS, len(self._unshown))):
            if wait := self._waits.get(self._unshown.popleft()):
                self._show(wait)

    def _take_results(self, build_ids: Iterable[str]) -> None:
        """Let the submissions whose build has ended be looked at again."""
        for build_id in build_ids:
            if self._is_built(build_id):
                for wait in self._waits.end(build_id):
                    self._seen.see(Place(State.BUILDING, wait.entry), wait.uid)

    def _is_built(self, build_id: str) -> bool:
        try:
            return self._builds.result(build_id) is not None
        except NewerFormatError as error:
            self._newer.meet(error)
            return False

    def _end_waits(self) -> None:
        began = last = self._spool.clock.monotonic()
        for _ in range(ENDS):
            wait = self._waits.overdue(began)
            if wait is None:
                return
            if self._may_answer(wait.uid):
                self._end_wait(wait.entry)
            else:
                self._waits.add(wait._replace(until=began + ENDS_AGAIN))
            last, before = self._spool.clock.monotonic(), last
            self._waits.ended(last - before)
            if last - began >= LONG:
                return

    def _end_wait(self, entry: Entry) -> None:
        try:
            submission = self._spool.read(
                State.BUILDING, entry
            )  # before the claim: then an error leaves it where it is
            self._spool.queue.claim(entry, State.BUILDING, State.RUNNING)
            phase = Phase(stderr="limits.dependencies.time passed before the build ended\n", outcome=Outcome.TIME_LIMIT)
            self._finish(entry, submission, answered(submission, Status.DEPENDENCIES_FAILED, dependencies=phase))
        except (LeaseLostError, NewerFormatError):
            return
        except OSError as error:
            log.error("could not end a wait; trying again", submission=entry.id, error=error)

    def _queue(self, place: Place, submission: Submission, request: Request, build: BuildRecord) -> None:
        """Let a submission wait in line for a slot."""
        if place.state is State.BUILDING:  # one whose build was there already may not have to wait: nothing to show yet
            progress = Progress(self._spool, place.entry, submission.Response, submission.Spool, self._slots.is_short)
            progress.change(status=Status.DEPENDENCIES_INSTALLED, dependencies=build.result.phase)
        owner, limits = submission.Spool.uid, self._settings.limits
        job, _ = plan_job(place.entry, request, limits, build=build.result, nixpkgs="", owner=owner)
        ready = Ready(place, sys.intern(build.build_id), asked(limits, job), job.longest)
        self._line.ready(ready, owner, request.priority)

    # -- answers that need no sandbox

    def _may_answer(self, owner: int) -> bool:
        """Tell whether the disk and the owner's share have room for one more answer; say so where the share has not."""
        if not self._shares.may_begin(owner):
            self._shares.tell(owner, "answers wait")
            return False
        return not self._slots.is_short()

    def _answer(self, place: Place, submission: Submission, build: BuildRecord | None) -> None:
        if not self._may_answer(submission.Spool.uid):
            self._hold(place, submission.Spool.uid)
            return
        response = listed(submission, self._builds) if build is None else failed(submission, build.result.phase)
        self._spool.queue.claim(place.entry, place.state, State.RUNNING)
        self._finish(place.entry, submission, response)

    def _hold(self, place: Place, owner: int) -> None:
        """Let an answer wait in ``new/``: a failed build is forgotten, and what waits for it would lose attempts."""
        if place.state is State.BUILDING:
            self._spool.queue.claim(place.entry, State.BUILDING, State.RUNNING)
            self._spool.queue.give_back(place.entry, State.RUNNING, place.entry.attempt)
        self._unanswered.add(self._persons.of(owner), place.entry)

    def _finish(self, entry: Entry, submission: Submission, response: Response) -> None:
        """End an entry that this executor has claimed; a full disk puts it back, and it loses no attempt."""
        try:
            self._slots.finish(entry, submission, response)
        except OSError:
            self._spool.queue.give_back(entry, State.RUNNING, entry.attempt)
            raise

    # -- what the builder provides, and the engine

    def _follow_runtime(self) -> None:
        seen = fsops.identity(self._builds.runtime.path)
        if seen != self._runtime_seen:
            self._runtime, self._runtime_seen = self._provided(), seen
            self._waits.clear()  # build ids depend on the pins: the next scan finds these again
            if self._runtime is not None:
                self._slots.use_runtime(self._runtime)
        self._engine.look()

    def _provided(self) -> Runtime | None:
        try:
            return self._builds.runtime.usable()
        except NewerFormatError as error:
            log.warning("waiting: the builder is of a newer version; upgrade this executor", error=error)
        except OperatorError as error:
            log.error("no work is taken until the builder provides a runtime that can be used", error=error)
        return None

    def _build_id(self, request: Request | None) -> str | None:
        if request is None or request.kind == "list-dependencies" or self._runtime is None:
            return None
        return build_id_of(request, self._runtime)
