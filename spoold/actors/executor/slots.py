"""Slots: each takes one submission at a time through a sandbox. See ``workers`` for their threads.

Spec: spool-layout.md, "Transitions" and "Commit and publication". A worker claims an entry into ``running/`` and renews
the lease until the commit. It always lets go of the entry: finished, given back, or set aside. Whatever happens to one
submission, the slot goes on with the next.
"""

from __future__ import annotations

import threading
from functools import partial

import msgspec

from spoold.actors.executor.ending import Ending
from spoold.actors.executor.line import Line
from spoold.actors.executor.ready import Place, Taken
from spoold.actors.executor.running import Running
from spoold.actors.executor.showing import Showing
from spoold.actors.executor.workers import Workers
from spoold.config import Settings
from spoold.host.log import Log
from spoold.host.metrics import PHASE, SLOTS, SLOTS_BUSY, WAIT
from spoold.model.checkers import why_lost
from spoold.model.errors import (
    LeaseLostError,
    NewerFormatError,
    OperatorError,
    SpooldError,
    TemporaryError,
)
from spoold.model.ids import Entry
from spoold.model.job import Runtime
from spoold.model.plan import builds_of, plan_job
from spoold.model.response import Outcome, Status, begun, of_dependencies
from spoold.model.states import Role, State
from spoold.model.submission import Request
from spoold.sandbox import RunCancelledError
from spoold.sandbox.lifecycle import EngineMonitor
from spoold.sandbox.sizes import asked
from spoold.spool.builds import BuildRecord, BuildStore
from spoold.spool.holding import Holder
from spoold.spool.lease import Heartbeat, Lease
from spoold.spool.newer import LeftAlone
from spoold.spool.progress import Progress
from spoold.spool.recovery import recover
from spoold.spool.store import Spool
from spoold.upkeep.floor import Floor

log = Log(Role.EXECUTOR)
FULL = 0.5  # seconds between two looks while the disk is full
BACK_OFF = 5.0  # seconds for which a slot rests after an error of the host (a full disk)


class Slots:
    """As many workers as the settings say, over one spool and one engine."""

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        builds: BuildStore,
        engine: EngineMonitor,
        line: Line,
        *,
        heartbeat: Heartbeat,
        ending: Ending,
        floor: Floor,
        newer: LeftAlone,
    ) -> None:
        self._settings = settings
        self._spool, self._builds, self._engine = spool, builds, engine
        self._ending, self._floor, self._newer = ending, floor, newer
        self._heartbeat = heartbeat
        slots = 0 if settings.executor.route_only else settings.executor.slots
        self._workers = Workers(slots, line, self._work)
        self._line = line
        self._runtime: Runtime | None = None
        self._worked = spool.clock.monotonic()  # when a slot last had work
        self._stopping = threading.Event()
        self._holder = Holder(spool.queue, self._heartbeat, self._stopping, log)
        self._showing = Showing(elsewhere=settings.spool.published_by == "health")
        self._shower = threading.Thread(target=self._showing.serve, name="showing", daemon=True)

    def start(self) -> None:
        """Put back what an earlier process of this executor held, and begin to renew leases."""
        for entry in self._heartbeat.start():
            if newer := self._spool.newer_past_last(State.RUNNING, entry):
                self._newer.meet(newer)
                continue
            recover(self._spool.queue, State.RUNNING, entry, abandon=self._abandon, log=log)
        self._shower.start()
        self._workers.start()

    def apply_settings(self, settings: Settings) -> None:
        """Use other settings from the next job on."""
        if settings.limits != self._settings.limits:
            self._engine.go_by(settings.limits)
        self._settings = settings

    def hurry(self) -> None:
        """Put back what runs, now."""
        self._heartbeat.stop_holders()

    def stuck(self, patience: float) -> str:
        """Say which part of the slots is lost, "" where all is well. A job may take as long as it is allowed."""
        return self._workers.lost() or self._heartbeat.stuck(patience)

    def worked(self, now: float) -> float:
        """Return when a slot last had work, on the monotonic clock. That is ``now`` while a slot has work."""
        return now if self._holder.held else self._worked

    def measure(self) -> None:
        """Measure how many slots there are, and how many have work."""
        SLOTS.set(self._workers.slots)
        SLOTS_BUSY.set(min(self._holder.held, self._workers.slots))

    def stop(self) -> None:
        """Finish the jobs that run, or put them back after ``drain`` seconds. Take no others."""
        self._stopping.set()
        impatience = threading.Timer(self._settings.executor.drain, self._heartbeat.stop_holders)
        impatience.start()
        self._line.close()
        self._workers.join()
        impatience.cancel()
        self._showing.stop()
        if self._shower.is_alive():
            self._shower.join()
        self._spool.queue.results.tidy()
        self._heartbeat.tidy()
        self._heartbeat.stop()

    def use_runtime(self, runtime: Runtime) -> None:
        """Use ``runtime`` from now on. Replace the engine only if the sandbox itself would differ."""
        before, self._runtime = self._runtime, runtime
        if before is None or _without_pins(before) != _without_pins(runtime):
            self._engine.use(runtime)

    def _work(self, taken: Taken) -> None:
        self._wait_for_engine_and_room()
        if self._stopping.is_set():
            return
        self._line.begun(taken)
        try:
            if not self._take_on(taken):
                self._stopping.wait(BACK_OFF)
            elif self._line.idle and not self._holder.held:
                self._heartbeat.tidy()
                self._spool.queue.results.tidy()
        except OSError as error:
            log.error("the spool cannot be used now; private files are removed later", error=error)
        except Exception as error:  # noqa: BLE001 - the slot stays alive after any error
            log.bug("a slot failed", submission=taken.place.entry.id, error=error)
        self._worked = self._spool.clock.monotonic()

    def _wait_for_engine_and_room(self) -> None:
        while not self._stopping.is_set():
            if self._engine.ready.wait(0.2):
                if not self._floor.reached():
                    return
                self._stopping.wait(FULL)

    def _take_on(self, taken: Taken) -> bool:
        """Work on an entry. Return False where an error of the host (a full disk) stopped it."""
        place = taken.place
        entry = place.entry
        return self._holder.hold(
            entry,
            place.state,
            State.RUNNING,
            partial(self._hold, taken),
            give_back=partial(self._spool.queue.give_back, entry, State.RUNNING, entry.attempt),
            left=partial(self._line.left, place),
        )

    def _hold(self, taken: Taken, lease: Lease) -> None:
        entry = taken.place.entry
        try:
            self._run(taken, lease)
        except (LeaseLostError, RunCancelledError):
            self._put_back(entry, lost=lease.lost)
        except NewerFormatError as error:
            self._newer.meet(error)
            self._spool.queue.give_back(entry, State.RUNNING, entry.attempt)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - the entry goes on and the slot stays alive after any error
            self._recover(entry, error)

    def _run(self, taken: Taken, lease: Lease) -> None:
        entry = taken.place.entry
        submission = self._spool.decoded(lease.read(), State.RUNNING, entry)
        request = submission.Request
        record = self._builds.result(taken.build_id)
        sandbox, runtime = self._engine.sandbox, self._runtime
        pin = runtime.nixpkgs.get(request.nixpkgs) if request and runtime else None
        if request is None or pin is None or record is None or not record.result.shell or sandbox is None:
            self._spool.queue.give_back(entry, State.RUNNING, entry.attempt)  # its build was collected: it begins again
            return
        self._builds.uses.note_again(record.build_id, submission.Spool.uid)
        owner = submission.Spool.uid
        limits = self._settings.limits
        checker = self._checker(request, runtime, owner) if request.grader and runtime and not taken.lost else None
        if request.grader and not (checker or taken.lost):
            self._spool.queue.give_back(entry, State.RUNNING, entry.attempt)
            return
        theirs = checker.result if checker else None
        job, notes = plan_job(entry, request, limits, build=record.result, checker=theirs, nixpkgs=pin, owner=owner)
        job = msgspec.structs.replace(job, memory=asked(limits, job), scratch=self._spool.queue.path("tmp"))
        if job.memory > taken.size or job.longest > taken.seconds:  # limits grew: it waits for more room
            self._spool.queue.give_back(entry, State.RUNNING, entry.attempt)
            return
        cached = taken.place.is_unclaimed
        response = msgspec.structs.replace(
            submission.Response,
            status=Status.DEPENDENCIES_INSTALLED,
            dependencies=of_dependencies(record.result.phase, cached=cached),
            notes=notes or msgspec.UNSET,
        )
        response = begun(
            response,
            submitted=submission.Spool.arrival,
            built=None if cached else record.finished,
            started=self._spool.clock.nearly(),
        )
        progress = Progress(self._spool, entry, response, submission.Spool, self._floor.reached)
        self._ending.observe(WAIT, submission)
        log.info("running", submission=entry.id, attempt=entry.attempt, build=record.build_id)
        progress.change(status=Status.COMPILING if job.compile else Status.RUNNING)
        self._showing.soon(progress)
        try:
            final, result = Running(sandbox, progress, self._showing, lease).outcome_of(
                job,
                request,
                response,
                why_lost(theirs, request.grader.KIND) if theirs and request.grader else taken.lost,
            )
        finally:
            self._showing.over(progress)
        for name, phase in (("compile", final.compile), ("run", final.run)):
            if not isinstance(phase.time, str) and isinstance(phase.outcome, Outcome):
                PHASE.observe(phase.time, name, phase.outcome)
        lease.check()
        if entry.attempt == 1 and self._spool.queue.results.is_slow:  # what was tried before goes alone to its end
            self._workers.leave_slot(taken)
        self._ending.finish_job(entry, submission, final, result, limits.outputs.inline)
        lease.ended = True

    def _checker(self, request: Request, runtime: Runtime, owner: int) -> BuildRecord | None:
        """Return the last build that a request needs: its checker's or interactor's. None where it was collected."""
        last = list(builds_of(request, runtime))[-1]
        self._builds.uses.note_again(last, owner)
        return self._builds.result(last)

    def _put_back(self, entry: Entry, *, lost: bool) -> None:
        """Give back an entry that was not finished, unless its lease is lost."""
        if not lost and self._spool.queue.give_back(entry, State.RUNNING, entry.attempt):
            log.info("put back: the executor stops before the job ends", submission=entry.id, attempt=entry.attempt)
        else:
            log.warning("lost the lease; another attempt has it", submission=entry.id, attempt=entry.attempt)

    def _recover(self, entry: Entry, error: Exception) -> None:
        """Give an entry back after a fault of ours. A fault of the engine costs no attempt, any other costs one."""
        if isinstance(error, SpooldError):
            log.error("attempt failed", submission=entry.id, attempt=entry.attempt, error=error)
        else:
            log.bug("attempt failed", submission=entry.id, attempt=entry.attempt, error=error)
        if isinstance(error, (TemporaryError, OperatorError)) and not self._engine.check():
            self._spool.queue.give_back(entry, State.RUNNING, entry.attempt)
        elif entry.attempt < self._settings.lease.attempts:
            self._spool.queue.retry(entry, State.RUNNING)
        else:
            reason = f"attempt {entry.attempt} failed, which was the last: {error}"
            self._ending.set_aside(Place(State.RUNNING, entry), reason)

    def _abandon(self, entry: Entry) -> None:
        self._ending.set_aside(
            Place(State.RUNNING, entry),
            f"given up: the executor died {self._settings.lease.attempts} times while it ran this",
        )


def _without_pins(runtime: Runtime) -> Runtime:
    return msgspec.structs.replace(runtime, nixpkgs={})
