"""Executor: from an accepted submission to its response.

Spec: spool-layout.md, "Transitions". Every submission in ``new/`` is looked at once. Where its build exists it waits
in line for a sandbox, unclaimed; where not, it is claimed into ``building/``, its build is filed, and it holds neither
lease nor slot until the Build store tells of the end. What needs no sandbox (a failed build, a list of packages) is
answered at once. What goes on in a slot is in ``slots``.

What fails: a sandbox engine that is away, or a full disk, stops the taking of work and costs no attempt; anything else
of ours costs one, and the last one ends with ``INTERNAL_ERROR``. A lost lease cancels the job and is nobody's error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from spoold.actors.executor.slots import Place, Slots
from spoold.config import Settings
from spoold.host import fsops
from spoold.host.log import Log
from spoold.model import ids
from spoold.model.errors import LeaseLostError
from spoold.model.ids import Entry, Hint
from spoold.model.job import Runtime
from spoold.model.plan import build_id_of
from spoold.model.response import Outcome, Phase, Response, Status, WaitingFor
from spoold.model.submission import Dependencies, Origin, Request, Submission
from spoold.sandbox import Sandbox
from spoold.sandbox.lifecycle import Engine
from spoold.spool.builds import BuildRecord, BuildStore
from spoold.spool.recovery import publish_committed
from spoold.spool.store import Progress, Spool

log = Log("executor")
WITHOUT_RUNTIME = 0.5  # seconds between two looks for the runtime
BACK_OFF = 5.0  # seconds until the next try when the sandbox engine is away


class Waiting(NamedTuple):
    """A submission in ``building/``: what it waits for, and until when on the monotonic clock (None: for ever)."""

    build: WaitingFor
    until: float | None
    origin: Origin


class Executor:
    """One executor process; ``make_sandbox`` is given the runtime that the builder provides."""

    def __init__(self, settings: Settings, make_sandbox: Callable[[Runtime], Sandbox]) -> None:
        self._settings = settings
        self._spool = Spool(settings, f"executor-{settings.executor.name}")
        self._builds = BuildStore(settings)
        self._engine = Engine(make_sandbox)
        self._slots = Slots(settings, self._spool, self._builds, self._engine)
        self._waiting: dict[Entry, Waiting] = {}
        self._runtime: Runtime | None = None
        self._runtime_seen: fsops.Identity | None = None

    @property
    def watched(self) -> list[str]:
        """Return the directories, below the spool's root, in which a change is worth a step."""
        return ["new", "builds/building", "builds/done"]

    def start(self) -> None:
        """Show what an earlier executor committed and could not show, put back what it held; begin to renew leases."""
        publish_committed(self._spool.queue, log)
        self._slots.start()
        self._follow_runtime()
        if self._runtime is None:
            log.info("waiting for the builder to provide the runtime", path=self._builds.runtime_path)

    def stop(self) -> None:
        """Finish the jobs that run, put back what takes longer than ``drain``, take no others, remove the sandboxes."""
        self._slots.stop()
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
        return self._pause(self._spool.clock.monotonic())

    def _pause(self, now: float) -> float:
        longest = self._settings.spool.scan if self._engine.ready.is_set() else BACK_OFF
        ends = [waiting.until - now for waiting in self._waiting.values() if waiting.until is not None]
        return max(0.05, min([longest, *ends]))

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
        known = [entry for entry in queue.entries(state) if not self._slots.has(Place(state, entry))]
        aged = [(fsops.mtime(queue.entry_path(state, entry)), entry) for entry in known]
        return [entry for _, entry in sorted((mtime, entry) for mtime, entry in aged if mtime is not None)]

    # -- what to do with one submission

    def _consider(self, place: Place) -> None:
        if self._slots.has(place):
            return
        try:
            submission = self._spool.read(*place)
            self._route(place, submission)
        except LeaseLostError:
            return  # another executor has it
        except msgspec.DecodeError as error:
            self._slots.set_aside(place, f"the entry cannot be read: {error}")
        except OSError as error:
            log.error("could not look at an entry; it stays where it is", submission=place.entry.id, error=error)

    def _route(self, place: Place, submission: Submission) -> None:
        request = submission.Request
        build_id = self._build_id(request)
        if request is None or build_id is None:
            self._answer(place, submission, None)
            return
        with self._builds.looking():
            found = self._builds.look(build_id)
            self._builds.note_use(build_id, submission.Spool.uid)
        if isinstance(found, BuildRecord):
            if found.result.shell:
                self._queue(place, submission, found)
            else:
                self._answer(place, submission, found)
            return
        if place.state == "new":
            self._spool.queue.claim(place.entry, "new", "building")
            log.info("waits for its dependencies", submission=place.entry.id, attempt=place.entry.attempt)
        if found == "missing":
            pin = self._runtime.nixpkgs[request.nixpkgs] if self._runtime else ""
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
            self._slots.finish(entry, submission, _answered(submission, Status.DEPENDENCIES_FAILED, dependencies=phase))
        except LeaseLostError:
            return

    def _queue(self, place: Place, submission: Submission, build: BuildRecord) -> None:
        """Let a submission wait in line for a slot."""
        if place.state == "building":  # one whose build was there already may not have to wait: nothing to show yet
            progress = Progress(self._spool, place.entry, submission.Response, submission.Spool)
            progress.change(status=Status.DEPENDENCIES_INSTALLED, dependencies=build.result.phase)
        self._slots.take(place, build.build_id)

    # -- answers that need no sandbox

    def _answer(self, place: Place, submission: Submission, build: BuildRecord | None) -> None:
        self._spool.queue.claim(place.entry, place.state, "running")
        response = self._listed(submission) if build is None else _failed(submission, build.result.phase)
        self._slots.finish(place.entry, submission, response)

    def _listed(self, submission: Submission) -> Response:
        """Return the answer to what needs no build: a list, or word that it cannot be done."""
        request = submission.Request
        if request is None:
            return _answered(submission, Status.INTERNAL_ERROR, reason="the entry has no request")
        if request.kind != "list-dependencies":
            reason = f"nixpkgs: {request.nixpkgs!a} is no longer a pin here"
            return _answered(submission, Status.REJECTED, reason=reason)
        everyone = submission.Spool.uid in (0, os.geteuid())
        packages = self._builds.packages(None if everyone else submission.Spool.uid)
        return _answered(submission, Status.COMPLETED, packages=packages)

    # -- what the builder provides, and the engine

    def _follow_runtime(self) -> None:
        seen = fsops.identity(self._builds.runtime_path)
        if seen != self._runtime_seen:
            self._runtime, self._runtime_seen = self._builds.runtime(), seen
            self._waiting.clear()  # build ids depend on the pins: the next scan finds these again
            if self._runtime is not None:
                self._slots.follow(self._runtime)
        if not self._engine.ready.is_set():
            self._engine.check()

    def _build_id(self, request: Request | None) -> str | None:
        if request is None or request.kind == "list-dependencies" or self._runtime is None:
            return None
        return build_id_of(request, self._runtime)


def _failed(submission: Submission, phase: Phase) -> Response:
    ours = phase.outcome is Outcome.INTERNAL_ERROR
    status = Status.INTERNAL_ERROR if ours else Status.DEPENDENCIES_FAILED
    return _answered(submission, status, dependencies=phase)


def _answered(submission: Submission, status: Status, **parts: object) -> Response:
    return msgspec.structs.replace(submission.Response, status=status, **parts)
