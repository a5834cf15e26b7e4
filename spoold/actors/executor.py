"""Executor: from an accepted submission to its response.

Spec: spool-layout.md, "Transitions". Every submission in ``new/`` is looked at once. Where its build exists it waits
in line for a sandbox, unclaimed; where not, it is claimed into ``building/``, its build is filed, and it holds neither
lease nor slot until the Build store tells of the end. What needs no sandbox (a failed build, a list of packages) is
answered at once. A worker claims into ``running/``, and the lease is renewed until the commit.

What fails: a sandbox engine that is away stops the taking of work, not the attempt; anything else of ours costs an
attempt, and the last one ends with ``INTERNAL_ERROR``. A lost lease cancels the job and is nobody's error.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from spoold.config import Settings
from spoold.host import fsops
from spoold.host.log import Log
from spoold.model import ids
from spoold.model.errors import ClientError, LeaseLostError, OperatorError, SpooldError, TemporaryError
from spoold.model.ids import Entry, Hint
from spoold.model.job import Runtime
from spoold.model.plan import plan_job
from spoold.model.response import Outcome, Phase, Response, Status, WaitingFor, verdict
from spoold.model.submission import Dependencies, Origin, Request, Submission
from spoold.sandbox import RunCancelledError, Sandbox
from spoold.sandbox.lifecycle import Engine
from spoold.spool.builds import BuildRecord, BuildStore
from spoold.spool.lease import Heartbeat, Lease
from spoold.spool.recovery import publish_committed, recover
from spoold.spool.store import Progress, Spool

log = Log("executor")
WITHOUT_RUNTIME = 0.5  # seconds between two looks for the runtime
BACK_OFF = 5.0  # seconds until the next try when the sandbox engine is away


class Waiting(NamedTuple):
    """A submission in ``building/``: what it waits for, and until when on the monotonic clock (None: for ever)."""

    build: WaitingFor
    until: float | None
    origin: Origin


class Place(NamedTuple):
    """Where an entry was seen."""

    state: str
    entry: Entry


class Executor:
    """One executor process; ``make_sandbox`` is given the runtime that the builder provides."""

    def __init__(self, settings: Settings, make_sandbox: Callable[[Runtime], Sandbox]) -> None:
        self._settings = settings
        self._spool = Spool(settings, f"executor-{settings.executor.name}")
        self._builds = BuildStore(settings)
        self._engine = Engine(make_sandbox)
        self._heartbeat = Heartbeat(
            settings.lease.renewal, self._spool.queue.path("tmp", f"executor-{settings.executor.name}.held")
        )
        slots = settings.executor.slots or os.cpu_count() or 1
        self._workers = ThreadPoolExecutor(slots, thread_name_prefix="slot")
        self._queued: set[Place] = set()
        self._waiting: dict[Entry, Waiting] = {}
        self._runtime: Runtime | None = None
        self._runtime_seen: fsops.Identity | None = None
        self._stopping = threading.Event()

    @property
    def watched(self) -> list[str]:
        """Return the directories, below the spool's root, in which a change is worth a step."""
        return ["new", "builds/building", "builds/done"]

    def start(self) -> None:
        """Show what an earlier executor committed and could not show, put back what it held; begin to renew leases."""
        publish_committed(self._spool.queue, log)
        for entry in self._heartbeat.start():
            recover(self._spool.queue, "running", entry, abandon=self._abandon, log=log)
        self._follow_runtime()
        if self._runtime is None:
            log.info("waiting for the builder to provide the runtime", path=self._builds.runtime_path)

    def stop(self) -> None:
        """Finish the jobs that run, put back what takes longer than ``drain``, take no others, remove the sandboxes."""
        self._stopping.set()
        impatience = threading.Timer(self._settings.executor.drain, self._heartbeat.stop_holders)
        impatience.start()
        self._workers.shutdown(wait=True, cancel_futures=True)
        impatience.cancel()
        self._heartbeat.stop()
        self._engine.close()

    def step(self, hints: Iterable[Hint] | None = None) -> float:
        """Look at what ``hints`` name, or at everything; return the seconds after which to look again."""
        self._follow_runtime()
        if self._runtime is None:
            return WITHOUT_RUNTIME
        if hints is None:
            self._scan()
        else:
            self._follow(hints)
        self._end_waits(self._spool.clock.monotonic())
        return self._settings.spool.scan if self._engine.ready.is_set() else BACK_OFF

    # -- what there is

    def _scan(self) -> None:
        for entry in self._oldest_first("new"):
            self._consider(Place("new", entry))
        for entry in self._oldest_first("building"):
            if entry not in self._waiting:
                self._consider(Place("building", entry))
        self._collect({waiting.build.build_id for waiting in self._waiting.values()})

    def _follow(self, hints: Iterable[Hint]) -> None:
        begun, ended = set(), set()
        for hint in hints:
            entry = ids.parse_entry(hint.name)
            if hint.directory == "builds/done":
                ended.add(hint.name.removesuffix(ids.response_name("")))
            elif entry and hint.directory == "builds/building":
                begun.add(entry.id)
            elif entry:
                self._consider(Place("new", entry))
        self._begun(begun)
        self._collect(ended)

    def _oldest_first(self, state: str) -> list[Entry]:
        queue = self._spool.queue
        known = [entry for entry in queue.entries(state) if Place(state, entry) not in self._queued]
        aged = [(fsops.mtime(queue.entry_path(state, entry)), entry) for entry in known]
        return [entry for _, entry in sorted((mtime, entry) for mtime, entry in aged if mtime is not None)]

    # -- what to do with one submission

    def _consider(self, place: Place) -> None:
        if place in self._queued:
            return
        try:
            submission = self._spool.read(*place)
            self._route(place, submission)
        except LeaseLostError:
            return  # another executor has it
        except msgspec.DecodeError as error:
            self._set_aside(place, f"the entry cannot be read: {error}")
        except OSError as error:
            log.error("could not look at an entry; it stays where it is", submission=place.entry.id, error=error)

    def _route(self, place: Place, submission: Submission) -> None:
        request = submission.Request
        if request is None or request.kind == "list-dependencies" or self._pin(request) is None:
            self._answer(place, submission)
            return
        build_id = self._build_id(request)
        with self._builds.looking():
            found = self._builds.look(build_id)
            if isinstance(found, BuildRecord):
                self._builds.note_use(build_id, submission.Spool.uid)
        if isinstance(found, BuildRecord):
            if found.result.shell:
                self._queue(place, submission, found)
            else:
                self._answer(place, submission)
            return
        if place.state == "new":
            self._spool.queue.claim(place.entry, "new", "building")
            log.info("waits for its dependencies", submission=place.entry.id, attempt=place.entry.attempt)
        if found == "missing":
            pin = self._pin(request) or ""
            self._builds.request(Dependencies(build_id=build_id, expression=request.expression(), nixpkgs=pin))
        asked = request.limits.dependencies
        until = self._spool.clock.monotonic() + asked.time if asked and asked.time else None
        state = "building" if found == "building" else "queued"
        self._wait(place.entry, Waiting(WaitingFor(build_id=build_id, state=state), until, submission.Spool))
        self._collect({build_id})  # it may have ended while we filed ourselves

    def _wait(self, entry: Entry, waiting: Waiting) -> None:
        self._waiting[entry] = waiting
        response = Response(status=Status.INSTALLING_DEPENDENCIES, waiting_for=waiting.build)
        self._spool.show(entry.id, response, waiting.origin, entry.attempt)

    def _begun(self, build_ids: set[str]) -> None:
        """Tell those who wait for a build that it is being built now."""
        for entry, waiting in list(self._waiting.items()):
            if waiting.build.build_id in build_ids and waiting.build.state == "queued":
                build = WaitingFor(build_id=waiting.build.build_id, state="building")
                self._wait(entry, waiting._replace(build=build))

    def _collect(self, build_ids: set[str]) -> None:
        """Move on the submissions whose build has ended."""
        ended = {build_id for build_id in build_ids if self._builds.result(build_id)}
        for entry in [entry for entry, waiting in self._waiting.items() if waiting.build.build_id in ended]:
            del self._waiting[entry]
            self._consider(Place("building", entry))

    def _end_waits(self, now: float) -> None:
        for entry, waiting in list(self._waiting.items()):
            if waiting.until is not None and now >= waiting.until:
                del self._waiting[entry]
                self._end_wait(entry)

    def _end_wait(self, entry: Entry) -> None:
        try:
            self._spool.queue.claim(entry, "building", "running")
            submission = self._spool.read("running", entry)
            phase = Phase(stderr="limits.dependencies.time passed before the build ended\n", outcome=Outcome.TIME_LIMIT)
            self._finish(entry, submission, _answered(submission, Status.DEPENDENCIES_FAILED, dependencies=phase))
        except LeaseLostError:
            return

    def _queue(self, place: Place, submission: Submission, build: BuildRecord) -> None:
        """Let a submission wait in line for a slot."""
        if place.state == "building":  # one whose build was there already may not have to wait: nothing to show yet
            progress = Progress(self._spool, place.entry, submission.Response, submission.Spool)
            progress.change(status=Status.DEPENDENCIES_INSTALLED, dependencies=build.result.phase)
        self._queued.add(place)
        self._workers.submit(self._work, place)

    # -- answers that need no sandbox

    def _answer(self, place: Place, submission: Submission) -> None:
        self._spool.queue.claim(place.entry, place.state, "running")
        self._finish(place.entry, submission, self._direct_response(submission))

    def _direct_response(self, submission: Submission) -> Response:
        request = submission.Request
        if request is None:
            return _answered(submission, Status.INTERNAL_ERROR, reason="the entry has no request")
        if request.kind == "list-dependencies":
            everyone = submission.Spool.uid in (0, os.geteuid())
            packages = self._builds.packages(None if everyone else submission.Spool.uid)
            return _answered(submission, Status.COMPLETED, packages=packages)
        if self._pin(request) is None:
            return _answered(
                submission, Status.REJECTED, reason=f"nixpkgs: {request.nixpkgs!a} is no longer a pin here"
            )
        record = self._builds.result(self._build_id(request))
        phase = record.result.phase if record else Phase(outcome=Outcome.INTERNAL_ERROR)
        ours = phase.outcome is Outcome.INTERNAL_ERROR
        status = Status.INTERNAL_ERROR if ours else Status.DEPENDENCIES_FAILED
        return _answered(submission, status, dependencies=phase)

    # -- in the sandbox

    def _work(self, place: Place) -> None:
        entry = place.entry
        while not self._engine.ready.wait(0.2) and not self._stopping.is_set():
            pass
        self._queued.discard(place)
        if self._stopping.is_set():
            return
        try:
            path = self._spool.queue.claim(entry, place.state, "running")
        except LeaseLostError:
            return  # another executor was first
        with self._heartbeat.holding(path) as lease:
            try:
                self._run(entry, lease)
            except (LeaseLostError, RunCancelledError):
                self._let_go(entry, lost=lease.lost)
            except Exception as error:  # noqa: BLE001 - whatever it is, the entry goes on and the slot stays alive
                self._recover(entry, error)

    def _run(self, entry: Entry, lease: Lease) -> None:
        submission = self._spool.read("running", entry)
        request = submission.Request
        record = self._builds.result(self._build_id(request)) if request else None
        sandbox, runtime = self._engine.sandbox, self._runtime
        if request is None or record is None or not record.result.shell or sandbox is None or runtime is None:
            self._spool.queue.give_back(entry, "running", entry.attempt)  # its build was collected: begin again
            return
        self._builds.note_use(record.build_id, submission.Spool.uid)
        pin = runtime.nixpkgs[request.nixpkgs]
        job, notes = plan_job(entry, request, self._settings.limits, build=record.result, nixpkgs=pin)
        response = msgspec.structs.replace(
            submission.Response,
            status=Status.DEPENDENCIES_INSTALLED,
            dependencies=record.result.phase,
            notes=notes or msgspec.UNSET,
        )
        progress = Progress(self._spool, entry, response, submission.Spool)
        log.info("running", submission=entry.id, attempt=entry.attempt, build=record.build_id[:12])
        progress.change(status=Status.COMPILING if job.compile else Status.RUNNING)
        try:
            result = sandbox.run(job, progress.phase_ended, lease.stop)
        except ClientError as error:
            final = msgspec.structs.replace(response, status=Status.REJECTED, reason=str(error))
        else:
            status = verdict(result.compile, result.run)
            final = msgspec.structs.replace(response, status=status, compile=result.compile, run=result.run)
        lease.check()
        self._finish(entry, submission, final)

    def _finish(self, entry: Entry, submission: Submission, response: Response) -> None:
        self._spool.finish(entry, response, submission.Spool)
        log.info("done", submission=entry.id, attempt=entry.attempt, status=response.status)

    def _let_go(self, entry: Entry, *, lost: bool) -> None:
        if not lost and self._spool.queue.give_back(entry, "running", entry.attempt):
            log.info("put back: there was no time to finish it", submission=entry.id, attempt=entry.attempt)
        else:
            log.warning("lost the lease; another attempt has it", submission=entry.id, attempt=entry.attempt)

    def _recover(self, entry: Entry, error: Exception) -> None:
        """Give an entry back after a failure of ours; only a failure that is not the engine's costs an attempt."""
        if isinstance(error, SpooldError):
            log.error("attempt failed", submission=entry.id, attempt=entry.attempt, error=error)
        else:
            log.bug("attempt failed", submission=entry.id, attempt=entry.attempt, error=error)
        if isinstance(error, (TemporaryError, OperatorError)) and not self._engine.check():
            self._spool.queue.give_back(entry, "running", entry.attempt)
        elif entry.attempt < self._settings.lease.attempts:
            self._spool.queue.give_back(entry, "running", entry.attempt + 1)
        else:
            self._set_aside(Place("running", entry), f"attempt {entry.attempt} failed, the last one: {error}")

    def _abandon(self, entry: Entry) -> None:
        self._set_aside(Place("running", entry), f"given up: {entry.attempt - 1} times the executor died that had it")

    def _set_aside(self, place: Place, reason: str) -> None:
        log.error("set aside", submission=place.entry.id, reason=reason)
        try:
            self._spool.give_up(place.entry, place.state, reason)
        except LeaseLostError:
            return

    # -- what the builder provides, and the engine

    def _follow_runtime(self) -> None:
        seen = fsops.identity(self._builds.runtime_path)
        if seen != self._runtime_seen:
            self._runtime, self._runtime_seen = self._builds.runtime(), seen
            self._waiting.clear()  # build ids depend on the pins: the next scan finds these again
            if self._runtime is not None:
                self._engine.use(self._runtime)
        if not self._engine.ready.is_set():
            self._engine.check()

    def _pin(self, request: Request) -> str | None:
        return self._runtime.nixpkgs.get(request.nixpkgs) if self._runtime else None

    def _build_id(self, request: Request) -> str:
        system = self._runtime.system if self._runtime else ""
        return ids.build_id(request.expression(), self._pin(request) or "", system)


def _answered(submission: Submission, status: Status, **parts: object) -> Response:
    return msgspec.structs.replace(submission.Response, status=status, **parts)
