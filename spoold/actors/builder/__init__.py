"""Builder: the only writer of the Nix store. It turns each Dependencies object into an environment, once.

Spec: spool-layout.md, "The Build store". At the start the builder provides the runtime, which the executors wait for:
the sandbox's own programs and the pins (``provider``). Builds get places in turns (``places``, ``lanes``). Each is
claimed, realised and recorded (``work``). Builds that nobody needs any more are collected (``collector``).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from spoold.actors.builder.collector import Cache, Collector
from spoold.actors.builder.places import NEW, Places
from spoold.actors.builder.provider import Provider, Source
from spoold.actors.builder.work import Realiser, Work
from spoold.config import Settings
from spoold.host import machine
from spoold.host.clock import Clock
from spoold.host.log import Log
from spoold.host.metrics import CACHED, STORE_FREE
from spoold.host.persons import weights, weights_if_known
from spoold.model.errors import SpooldError
from spoold.model.ids import Entry, Hint, Kept
from spoold.model.states import Role, State
from spoold.spool.builds import BuildStore
from spoold.spool.lease import Heartbeat
from spoold.spool.newer import LeftAlone
from spoold.spool.recovery import mend, recover

log = Log(Role.BUILDER)
ATTENTION = 1.0  # seconds between two looks while builds wait for a place


class Backend(Cache, Source, Realiser, Protocol):
    """All the work that is done in the store: Nix."""


class Builder:
    """One builder process over one Build store."""

    def __init__(self, settings: Settings, backend: Backend) -> None:
        self._settings = settings
        self._builds = builds = BuildStore(settings)
        self._heartbeat = Heartbeat(settings.lease.renewal, builds.queue.path("tmp", f"builder{Kept.HELD}"))
        self._newer = newer = LeftAlone(log)
        clock = Clock(builds.queue.path("tmp", f"builder{Kept.PROBE}"))
        self._places = Places(settings.builder, builds, clock, newer)
        self._places.set_weights(weights(settings.turns.weights))
        self._provider = Provider(settings, backend, builds, newer)
        self._stopping = threading.Event()
        self._work = Work(
            settings,
            backend,
            builds,
            clock,
            places=self._places,
            provider=self._provider,
            heartbeat=self._heartbeat,
            stopping=self._stopping,
        )
        self._workers = ThreadPoolExecutor(self._places.count, thread_name_prefix="build")
        self._collector = Collector(settings, backend, newer)
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="collect")

    @property
    def watched(self) -> list[str]:
        """Return the directories, below the spool's root, in which a change is worth a step."""
        return ["builds", NEW, "builds/collect"]

    def start(self) -> None:
        """Provide the runtime. Publish what an earlier builder only committed."""
        mend(self._builds.queue, log)
        self._builds.fetching.clear()
        log.info("preparing the runtime of jobs; the first time takes some minutes", state=self._settings.nix.state)
        self._provider.provide()
        log.info("the runtime of jobs is ready")
        for entry in self._heartbeat.start():
            recover(self._builds.queue, State.BUILDING, entry, abandon=self._work.abandon, log=log)

    def stop(self) -> None:
        """End the builds that run. They go back to the start and lose only time."""
        self._stopping.set()
        self._places.close()
        self._heartbeat.stop_holders()
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._beside.shutdown(wait=True, cancel_futures=True)
        self._heartbeat.stop()

    def hurry(self) -> None:
        """Do nothing: ``stop`` ends the builds that run, and they begin anew later."""

    def stuck(self, patience: float) -> str:
        """Say that leases are no longer renewed, "" where they are."""
        return self._heartbeat.stuck(patience)

    def apply_settings(self, settings: Settings) -> None:
        """Use other settings. New pins are provided beside the builds that run."""
        before, self._settings = self._settings, settings
        self._collector.apply_settings(settings)
        self._provider.apply_settings(settings)
        if before.turns != settings.turns and (found := weights_if_known(settings.turns.weights)) is not None:
            self._places.set_weights(found)
        if before.nixpkgs != settings.nixpkgs:
            self._in_background(self._provider.provide_anew)

    def measure(self) -> None:
        """Measure the builds, and the disk of the store."""
        self._places.measure()
        CACHED.set(len(self._builds.finished()))
        with contextlib.suppress(FileNotFoundError):  # before Nix has made the store
            STORE_FREE.set(machine.room(self._settings.nix.state).bytes)

    def step(self, hints: Iterable[Hint] | None = None) -> float:
        """Queue the builds that ``hints`` name, or all that there are. Return the seconds until the next look."""
        self._in_background(self._collector.answer_orders)
        if self._provider.changed():
            self._in_background(self._provider.provide_anew)
        self._places.see(hints)
        self._give_places()
        self._newer.tell()
        return self._settings.spool.scan if self._places.idle else min(ATTENTION, self._settings.spool.scan)

    def _in_background(self, work: Callable[[], None]) -> None:
        """Let the background thread do ``work``, and log its failures, since nobody asks for the outcome."""

        def watched() -> None:
            try:
                work()
            except (SpooldError, OSError) as error:
                log.error("work in the background failed: a collection or new pins", error=error)
            except Exception as error:  # noqa: BLE001 - otherwise nobody would learn of it
                log.bug("work in the background failed: a collection or new pins", error=error)

        self._beside.submit(watched)

    def _give_places(self) -> None:
        self._places.give(self._begin, self._end)

    def _begin(self, entry: Entry) -> None:
        self._workers.submit(self._build, entry)

    def _end(self, entry: Entry) -> None:
        self._heartbeat.stop_holder(self._builds.queue.entry_path(State.BUILDING, entry))

    def _build(self, entry: Entry) -> None:
        try:
            self._work.build(entry)
        except Exception as error:  # noqa: BLE001 - its lease runs out, the builder goes on, and the log tells
            log.bug(
                "a build was lost; it begins again when its lease has run out",
                build=entry.id,
                attempt=entry.attempt,
                error=error,
            )
        finally:
            self._places.ended(entry)
            self._give_places()
