"""Builder: the only writer of the Nix store. It turns Dependencies objects into environments, each once.

Spec: spool-layout.md, "The Build store". At start it provides the runtime (the sandbox's own programs, the pins), which
the executors wait for. Then it claims builds, in the turns that ``lanes`` gives them, and records for each what
nix-shell would have set up, or why there is nothing. A failure that is the client's is a result like any other; one of
ours costs an attempt, and the last one is a result with the outcome ``internal_error``; a disk of the spool in trouble
costs none. What is put back, to make room or after a failure, waits in ``builds/new`` like all others and holds no
worker. A build that a newer version of spoold filed stays there.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

import msgspec

from spoold.actors.builder.collector import Cache, Collector
from spoold.actors.builder.lanes import Lanes
from spoold.actors.builder.provider import Provider, Source
from spoold.config import Settings
from spoold.host import fsops, machine
from spoold.host.clock import Clock
from spoold.host.log import Log
from spoold.host.metrics import BUILD, BUILDS_RUNNING, BUILDS_WAITING, CACHED, STORE_FREE
from spoold.host.persons import Persons, weights, weights_if_known
from spoold.model import ids
from spoold.model.errors import LeaseLostError, NewerFormatError, OperatorError, SpooldError, TemporaryError
from spoold.model.ids import Entry, Hint, Kept
from spoold.model.job import BuildResult
from spoold.model.response import Outcome, Phase
from spoold.model.states import Kind, Role, State
from spoold.spool.builds import BuildStore
from spoold.spool.holding import Holder
from spoold.spool.lease import Heartbeat, Lease
from spoold.spool.newer import LeftAlone
from spoold.spool.recovery import mend, recover

log = Log(Role.BUILDER)
NEW = Kind.BUILD.directory(State.NEW)
BACK_OFF = 5.0  # seconds to wait before a build is tried again when the fault was ours
ATTENTION = 1.0  # seconds between two looks while builds wait for a place


class Backend(Cache, Source, Protocol):
    """What realises expressions: Nix."""

    def build(self, build_id: str, expression: str, nixpkgs: str, cancelled: threading.Event) -> BuildResult:
        """Realise one expression."""


class Builder:
    """One builder process over one Build store."""

    def __init__(self, settings: Settings, backend: Backend) -> None:
        self._settings = settings
        self._backend = backend
        self._builds = BuildStore(settings)
        self._clock = Clock(self._builds.queue.path("tmp", f"builder{Kept.PROBE}"))
        self._heartbeat = Heartbeat(settings.lease.renewal, self._builds.queue.path("tmp", f"builder{Kept.HELD}"))
        self._lanes = Lanes(settings.builder)
        self._lanes.set_weights(weights(settings.turns.weights))
        self._persons = Persons()
        self._rests_until = 0.0  # on the monotonic clock: the store is away
        self._lock = threading.Lock()  # of the lanes; what is put back moves on disk and in them at once
        self._workers = ThreadPoolExecutor(self._lanes.places, thread_name_prefix="build")
        self._newer = LeftAlone(log)
        self._collector = Collector(settings, backend, self._newer)
        self._collecting = ThreadPoolExecutor(1, thread_name_prefix="collect")
        self._provider = Provider(settings, backend, self._builds, self._newer)
        self._stopping = threading.Event()
        self._holder = Holder(self._builds.queue, self._heartbeat, self._stopping, log)
        self._left: set[Entry] = set()  # builds in new/ that a newer version filed

    @property
    def watched(self) -> list[str]:
        """Return the directories, below the spool's root, in which a change is worth a step."""
        return ["builds", NEW, "builds/collect"]

    def start(self) -> None:
        """Provide the runtime; show what an earlier builder committed and could not show."""
        mend(self._builds.queue, log)
        log.info("providing the runtime; the first time takes a while", state=self._settings.nix.state)
        self._provider.provide()
        log.info("the runtime is provided")
        for entry in self._heartbeat.start():
            recover(self._builds.queue, State.BUILDING, entry, abandon=self._abandon, log=log)

    def _abandon(self, entry: Entry) -> None:
        self._finish(
            entry, failure_of_ours(f"given up: {self._settings.lease.attempts} times the builder died that had it")
        )

    def stop(self) -> None:
        """End the builds that run: they go back to the start and lose nothing but time."""
        with self._lock:
            self._stopping.set()
        self._heartbeat.stop_holders()
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._collecting.shutdown(wait=True, cancel_futures=True)
        self._heartbeat.stop()

    def hurry(self) -> None:
        """Nothing takes long: builds that run are ended, and begin anew later."""

    def stuck(self, patience: float) -> str:
        """Say whether leases are not renewed any more."""
        return self._heartbeat.stuck(patience)

    def apply_settings(self, settings: Settings) -> None:
        """Go by other settings; pins that are new are provided beside what runs."""
        before, self._settings = self._settings, settings
        self._collector.apply_settings(settings)
        self._provider.apply_settings(settings)
        if before.turns != settings.turns and (found := weights_if_known(settings.turns.weights)) is not None:
            with self._lock:
                self._lanes.set_weights(found)
        if before.nixpkgs != settings.nixpkgs:
            self._in_background(self._provider.provide_anew)

    def measure(self) -> None:
        """Measure the builds, and the disk of the store."""
        with self._lock:
            BUILDS_RUNNING.set(self._lanes.running)
            BUILDS_WAITING.set(self._lanes.waiting)
        CACHED.set(len(self._builds.finished()))
        with contextlib.suppress(FileNotFoundError):  # before Nix has made it
            STORE_FREE.set(machine.room(self._settings.nix.state).bytes)

    def step(self, hints: Iterable[Hint] | None = None) -> float:
        """Queue the builds that ``hints`` name, or all there are; return the seconds after which to look again."""
        self._in_background(self._collector.answer_orders)
        if self._provider.changed():
            self._in_background(self._provider.provide_anew)
        self._queue(hints)
        self._give_places()
        self._newer.tell()
        return self._settings.spool.scan if self._lanes.idle else min(ATTENTION, self._settings.spool.scan)

    def _in_background(self, work: Callable[[], None]) -> None:
        """Have the thread beside the builds do something, and the log tell what fails: nobody asks for the outcome."""

        def watched() -> None:
            try:
                work()
            except (SpooldError, OSError) as error:
                log.error("something beside the builds failed", error=error)
            except Exception as error:  # noqa: BLE001 - or nobody would know
                log.bug("something beside the builds failed", error=error)

        self._collecting.submit(watched)

    def _queue(self, hints: Iterable[Hint] | None) -> None:
        """Let builds wait for their turn: those that ``hints`` name, or all there are."""
        queue = self._builds.queue
        with self._lock:
            if hints is None:
                entries = queue.entries(State.NEW)
                self._left &= set(entries)
            else:
                seen = [hint for hint in hints if hint.directory == NEW]
                entries = [entry for hint in seen if (entry := ids.parse_entry(hint.name))]
            for entry in entries:
                known = entry in self._left or self._lanes.has(entry)
                since = None if known else fsops.mtime(queue.entry_path(State.NEW, entry))
                if since is not None:
                    due = queue.due(entry, since, self._clock) if entry.attempt > 1 else 0.0
                    self._lanes.add(entry, since, due)

    def _give_places(self) -> None:
        """Start what may start, and stop what has to make room: whenever a build comes or ends, and as time passes."""
        with self._lock:
            now = self._clock.monotonic()
            if self._lanes.idle or self._stopping.is_set() or now < self._rests_until:
                return
            for entry in self._lanes.start(self._askers(), now):
                self._workers.submit(self._work, entry)
            for entry in self._lanes.stop(now):
                self._heartbeat.stop_holder(self._builds.queue.entry_path(State.BUILDING, entry))

    def _askers(self) -> dict[str, set[int]]:
        """Return the persons who asked for each build."""
        self._persons.look()
        return {build: {self._persons.of(uid) for uid in uids} for build, uids in self._builds.uses.askers().items()}

    def _work(self, entry: Entry) -> None:
        try:
            self._build(entry)
        except NewerFormatError as error:
            self._leave(entry, error)
        except Exception as error:  # noqa: BLE001 - its lease runs out, the builder goes on, and the log tells
            log.bug("a build was lost", build=entry.id, attempt=entry.attempt, error=error)
        finally:
            with self._lock:
                self._lanes.ended(entry, self._clock.monotonic())
            self._give_places()

    def _leave(self, entry: Entry, error: NewerFormatError) -> None:
        """Leave a build in ``builds/new`` that a newer version filed: a builder of that version makes it."""
        self._newer.meet(error)
        with self._lock:
            self._left.add(entry)

    def _build(self, entry: Entry) -> None:
        with contextlib.suppress(LeaseLostError, OSError):  # the claim meets them as well
            if newer := self._builds.newer(State.NEW, entry):
                raise newer
        back = partial(self._put_back, entry, entry.attempt, BACK_OFF)
        self._holder.hold(entry, State.NEW, State.BUILDING, partial(self._hold, entry), give_back=back)

    def _hold(self, entry: Entry, lease: Lease) -> None:
        try:
            self._realise(entry, lease)
        except LeaseLostError:
            log.warning("lost the lease on a build", build=entry.id, attempt=entry.attempt)
        except (TemporaryError, OperatorError) as error:
            self._postpone(entry, error)
        except NewerFormatError as error:
            self._leave(entry, error)
            self._builds.queue.give_back(entry, State.BUILDING, entry.attempt)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - a bug costs this build an attempt, not the builder its life
            log.bug("a build's attempt failed", build=entry.id, attempt=entry.attempt, error=error)
            self._try_again(entry, error)

    def _postpone(self, entry: Entry, error: Exception) -> None:
        """Put a build back that came to no end: one that was stopped, or met a store that is away, lost no attempt.

        Any other did, or one expression that always meets the same failure would come back for ever.
        """
        if self._stopping.is_set():
            self._put_back(entry, entry.attempt)
        elif self._lanes.was_stopped(entry):
            log.info("takes long; put back, others go first", build=entry.id, attempt=entry.attempt)
            self._put_back(entry, entry.attempt)
        else:
            log.error("a build has to wait", build=entry.id, attempt=entry.attempt, error=error)
            if self._provider.is_possible():
                self._try_again(entry, error)
            else:
                self._rests_until = self._clock.monotonic() + BACK_OFF
                self._put_back(entry, entry.attempt)

    def _try_again(self, entry: Entry, error: Exception) -> None:
        """Have a build tried once more after a pause, or end it after the last attempt."""
        if entry.attempt < self._settings.lease.attempts:
            self._put_back(entry, entry.attempt + 1, pause=BACK_OFF)
        else:
            self._finish(entry, failure_of_ours(f"attempt {entry.attempt}, the last one, failed: {error}"))

    def _put_back(self, entry: Entry, attempt: int, pause: float = 0.0) -> None:
        """Give a build up for now: it waits in ``builds/new``, for this builder ``pause`` seconds at least."""
        with self._lock:
            if self._builds.queue.give_back(entry, State.BUILDING, attempt):
                not_before = self._clock.monotonic() + pause
                self._lanes.add(Entry(entry.id, attempt), self._clock.file_system(), not_before)

    def _realise(self, entry: Entry, lease: Lease) -> None:
        try:
            wanted = self._builds.read(State.BUILDING, entry)
        except msgspec.DecodeError as error:
            self._finish(entry, failure_of_ours(f"the entry cannot be read: {error}"))
            return
        pin = self._provider.pin(wanted.nixpkgs)
        if pin is None:
            self._finish(entry, failure_of_ours("the pin of nixpkgs was changed before this was built"))
            return
        log.info("building", build=entry.id, attempt=entry.attempt)
        try:
            result = self._backend.build(entry.id, wanted.expression, pin, lease.stop)
        except OSError as error:  # not the spool's, and perhaps this expression's alone: it has so many attempts
            raise TemporaryError(f"the build met an error of the host: {error}") from error
        lease.check()
        self._finish(entry, result)

    def _finish(self, entry: Entry, result: BuildResult) -> None:
        self._builds.finish(entry, result, self._clock.file_system())
        if not isinstance(result.phase.time, str):
            BUILD.observe(result.phase.time, str(result.phase.outcome))
        log.info("built", build=entry.id, outcome=result.phase.outcome, seconds=result.phase.time)


def failure_of_ours(reason: str) -> BuildResult:
    """Return the result of a build that failed through no fault of the client's."""
    return BuildResult(phase=Phase(stderr=f"spoold: {reason}\n", outcome=Outcome.INTERNAL_ERROR))
