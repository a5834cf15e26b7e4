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
from spoold.model.errors import ClientError, LeaseLostError, SpooldError, TemporaryError
from spoold.model.ids import Entry, Hint
from spoold.model.job import Job, Runtime
from spoold.model.limits import effective
from spoold.model.response import Outcome, Phase, Response, Status, verdict
from spoold.model.submission import COMPILE_FILE, Dependencies, Request, Submission
from spoold.sandbox import RunCancelledError, Sandbox
from spoold.spool.builds import BuildRecord, BuildStore
from spoold.spool.lease import Heartbeat, Lease
from spoold.spool.recovery import publish_committed
from spoold.spool.store import Spool

log = Log("executor")
WITHOUT_RUNTIME = 0.5  # seconds between two looks for the runtime
BACK_OFF = 5.0  # seconds until the next try when the sandbox engine is away


class Waiting(NamedTuple):
    """A submission in ``building/``: the build it waits for, and until when on the monotonic clock (None: for ever)."""

    build_id: str
    until: float | None


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
        self._make_sandbox = make_sandbox
        self._heartbeat = Heartbeat(settings.lease.renewal)
        slots = settings.executor.slots or os.cpu_count() or 1
        self._workers = ThreadPoolExecutor(slots, thread_name_prefix="slot")
        self._queued: set[Place] = set()
        self._waiting: dict[Entry, Waiting] = {}
        self._runtime: Runtime | None = None
        self._runtime_seen: fsops.Identity | None = None
        self._sandbox: Sandbox | None = None
        self._retired: list[Sandbox] = []
        self._engine = threading.Event()  # set while the sandbox engine answers
        self._stopping = threading.Event()

    @property
    def watched(self) -> list[str]:
        """Return the directories, below the spool's root, in which a change is worth a step."""
        return ["new", "builds/done"]

    def start(self) -> None:
        """Show what an earlier executor committed and could not show; begin to renew leases."""
        publish_committed(self._spool.queue, log)
        self._heartbeat.start()
        self._follow_runtime()
        if self._runtime is None:
            log.info("waiting for the builder to provide the runtime", path=self._builds.runtime_path)

    def stop(self) -> None:
        """Finish the jobs that run, take no others, remove the sandboxes."""
        self._stopping.set()
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._heartbeat.stop()
        for sandbox in filter(None, [self._sandbox, *self._retired]):
            sandbox.close()

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
        return self._settings.spool.scan if self._engine.is_set() else BACK_OFF

    # -- what there is

    def _scan(self) -> None:
        for entry in self._oldest_first("new"):
            self._consider(Place("new", entry))
        for entry in self._oldest_first("building"):
            if entry not in self._waiting:
                self._consider(Place("building", entry))
        self._collect({waiting.build_id for waiting in self._waiting.values()})

    def _follow(self, hints: Iterable[Hint]) -> None:
        ended = set()
        for hint in hints:
            if hint.directory != "new":
                ended.add(hint.name.removesuffix(ids.response_name("")))
            elif entry := ids.parse_entry(hint.name):
                self._consider(Place("new", entry))
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
        found = self._builds.look(build_id)
        if isinstance(found, BuildRecord):
            if found.result.shell:
                self._queue(place)
            else:
                self._answer(place, submission)
            return
        if place.state == "new":
            self._wait_for_build(place.entry, submission)
        if found == "missing":
            pin = self._pin(request) or ""
            self._builds.request(Dependencies(build_id=build_id, expression=request.expression(), nixpkgs=pin))
        asked = request.limits.dependencies
        until = self._spool.clock.monotonic() + asked.time if asked and asked.time else None
        self._waiting[place.entry] = Waiting(build_id, until)
        self._collect({build_id})  # it may have ended while we filed ourselves

    def _wait_for_build(self, entry: Entry, submission: Submission) -> None:
        self._spool.queue.claim(entry, "new", "building")
        log.info("waits for its dependencies", submission=entry.id, attempt=entry.attempt)
        response = msgspec.structs.replace(submission.Response, status=Status.INSTALLING_DEPENDENCIES)
        self._spool.show(entry.id, response, submission.Spool, entry.attempt)

    def _collect(self, build_ids: set[str]) -> None:
        """Move on the submissions whose build has ended."""
        ended = {build_id for build_id in build_ids if self._builds.result(build_id)}
        for entry in [entry for entry, waiting in self._waiting.items() if waiting.build_id in ended]:
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

    def _queue(self, place: Place) -> None:
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
        while not self._engine.wait(0.2) and not self._stopping.is_set():
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
                log.warning("lost the lease; another attempt has it", submission=entry.id, attempt=entry.attempt)
            except Exception as error:  # noqa: BLE001 - whatever it is, the entry goes on and the slot stays alive
                self._recover(entry, error)

    def _run(self, entry: Entry, lease: Lease) -> None:
        submission = self._spool.read("running", entry)
        request = submission.Request
        record = self._builds.result(self._build_id(request)) if request else None
        sandbox, runtime = self._sandbox, self._runtime
        if request is None or record is None or not record.result.shell or sandbox is None or runtime is None:
            self._spool.queue.give_back(entry, "running", entry.attempt)  # its build was collected: begin again
            return
        self._builds.note_use(record.build_id, submission.Spool.uid)
        job, notes = self._job(entry, request, record, runtime)
        response = msgspec.structs.replace(
            submission.Response,
            status=Status.DEPENDENCIES_INSTALLED,
            dependencies=record.result.phase,
            notes=notes or msgspec.UNSET,
        )
        progress = _Progress(self._spool, entry, submission, response)
        log.info("running", submission=entry.id, attempt=entry.attempt, build=record.build_id[:12])
        progress.begin(compiles=job.compile is not None)
        try:
            result = sandbox.run(job, progress.phase_ended, lease.lost)
        except ClientError as error:
            final = msgspec.structs.replace(response, status=Status.REJECTED, reason=str(error))
        else:
            status = verdict(result.compile, result.run)
            final = msgspec.structs.replace(response, status=status, compile=result.compile, run=result.run)
        lease.check()
        self._finish(entry, submission, final)

    def _job(self, entry: Entry, request: Request, record: BuildRecord, runtime: Runtime) -> tuple[Job, list[str]]:
        limits, asked = self._settings.limits, request.limits
        run, notes = effective("run", asked.run, limits.run.default, limits.run.maximum)
        compile_ = None
        if request.has(COMPILE_FILE):
            compile_, more = effective("compile", asked.compile, limits.compile.default, limits.compile.maximum)
            notes = more + notes
        job = Job(
            submission_id=entry.id,
            attempt=entry.attempt,
            files=request.job_files(),
            stdin=request.stdin(),
            args=request.args,
            env=request.env,
            compile=compile_,
            run=run,
            shell=record.result.shell,
            nixpkgs=runtime.nixpkgs[request.nixpkgs],
        )
        return job, notes

    def _finish(self, entry: Entry, submission: Submission, response: Response) -> None:
        self._spool.finish(entry, response, submission.Spool)
        log.info("done", submission=entry.id, attempt=entry.attempt, status=response.status)

    def _recover(self, entry: Entry, error: Exception) -> None:
        """Give an entry back after a failure of ours; only a failure that is not the engine's costs an attempt."""
        if isinstance(error, SpooldError):
            log.error("attempt failed", submission=entry.id, attempt=entry.attempt, error=error)
        else:
            log.bug("attempt failed", submission=entry.id, attempt=entry.attempt, error=error)
        if isinstance(error, TemporaryError) and not self._engine_answers():
            self._spool.queue.give_back(entry, "running", entry.attempt)
        elif entry.attempt < self._settings.lease.attempts:
            self._spool.queue.give_back(entry, "running", entry.attempt + 1)
        else:
            self._set_aside(Place("running", entry), f"attempt {entry.attempt} failed, the last one: {error}")

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
                if self._sandbox is not None:
                    self._retired.append(self._sandbox)
                self._sandbox = self._make_sandbox(self._runtime)
                self._engine.clear()
        if self._sandbox is not None and not self._engine.is_set():
            self._engine_answers()

    def _engine_answers(self) -> bool:
        try:
            if self._sandbox is None:
                return False
            self._sandbox.prepare()
        except TemporaryError as error:
            self._engine.clear()
            log.error("the sandbox engine is away; no work is taken until it is back", error=error)
            return False
        self._engine.set()
        return True

    def _pin(self, request: Request) -> str | None:
        return self._runtime.nixpkgs.get(request.nixpkgs) if self._runtime else None

    def _build_id(self, request: Request) -> str:
        system = self._runtime.system if self._runtime else ""
        return ids.build_id(request.expression(), self._pin(request) or "", system)


class _Progress:
    """Shows a job's phases to its owner as they end."""

    def __init__(self, spool: Spool, entry: Entry, submission: Submission, response: Response) -> None:
        self._spool = spool
        self._entry = entry
        self._submission = submission
        self._response = response

    def begin(self, *, compiles: bool) -> None:
        self._show(status=Status.COMPILING if compiles else Status.RUNNING)

    def phase_ended(self, name: str, phase: Phase) -> None:
        changes: dict[str, object] = {name: phase}
        if name == "compile" and phase.outcome is Outcome.OK:
            changes["status"] = Status.RUNNING
        self._show(**changes)

    def _show(self, **changes: object) -> None:
        self._response = msgspec.structs.replace(self._response, **changes)
        try:
            self._spool.show(self._entry.id, self._response, self._submission.Spool, self._entry.attempt)
        except OSError as error:
            log.warning("progress could not be shown", submission=self._entry.id, error=error)


def _answered(submission: Submission, status: Status, **parts: object) -> Response:
    return msgspec.structs.replace(submission.Response, status=status, **parts)
