"""Executor: from an accepted submission to its response.

Spec: spool-layout.md, "Transitions". Each submission in ``new/`` gets one look, a few of them in each step. It goes on
from there in one of three ways. If its build exists, it waits in line for a sandbox, unclaimed (``line``, ``ready``),
until a slot takes it (``slots``). If not, it waits for its build (``building``). If it needs no sandbox (a failed
build, a build alone, a list of packages), it is answered at once (``answering``). All three end in ``ending``.

An entry of a newer version of spoold stays where it is, for an executor of that version. A submission keeps waiting
when the result of its build is of a newer version.

What fails: while the sandbox engine is away or a disk is in trouble, no work is taken, and no attempt is lost. Any
other fault of ours costs an attempt, and the last attempt ends with ``INTERNAL_ERROR``. A lost lease cancels the job.
That is nobody's error.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable

import msgspec

from spoold.actors.executor.admission import fitted
from spoold.actors.executor.answering import Answering
from spoold.actors.executor.building import Building
from spoold.actors.executor.ending import Ending
from spoold.actors.executor.finding import Finder
from spoold.actors.executor.life import Life
from spoold.actors.executor.line import Line
from spoold.actors.executor.pace import Pace
from spoold.actors.executor.provided import Provided
from spoold.actors.executor.ready import Place
from spoold.actors.executor.routing import Routing
from spoold.actors.executor.seen import FOUND, AllSeen, Seen
from spoold.actors.executor.slots import Slots
from spoold.config import Settings
from spoold.host import fsops
from spoold.host.log import Log
from spoold.host.metrics import ENGINE_READY, READY
from spoold.host.persons import Persons, weights, weights_if_known
from spoold.model.errors import LeaseLostError, NewerFormatError
from spoold.model.ids import Hint, Kept
from spoold.model.job import Runtime
from spoold.model.states import Role, State
from spoold.sandbox import Sandbox
from spoold.sandbox.lifecycle import EngineMonitor
from spoold.spool.builds import BuildStore
from spoold.spool.lease import Heartbeat
from spoold.spool.newer import LeftAlone
from spoold.spool.recovery import mend
from spoold.spool.store import Spool
from spoold.upkeep import usage
from spoold.upkeep.floor import Floor
from spoold.upkeep.shares import Shares
from spoold.upkeep.stores import Stores

log = Log(Role.EXECUTOR)
WITHOUT_RUNTIME = 0.5  # seconds between two looks for the runtime
BACK_OFF = 1.0  # seconds until the next look while the sandbox engine is away, or somebody's share is used up
FIRST_LOOK = 10.0  # seconds that the start waits for the engine
NOTES = 2.0  # seconds between two notes of how much each person used


class Executor:
    """One executor process. ``make_sandbox`` makes a sandbox from the runtime that the builder provides."""

    def __init__(self, settings: Settings, make_sandbox: Callable[[Runtime], Sandbox]) -> None:
        self._settings = settings = fitted(settings)
        self._spool = spool = Spool(settings, settings.executor.process, executes=True)
        self._builds = builds = BuildStore(settings)
        self._engine = EngineMonitor(make_sandbox)
        self._persons = persons = Persons()
        self._shares = shares = Shares(settings, spool, persons.of)
        self._floor = floor = Floor(settings, 0.5, "no job is started")
        self._newer = newer = LeftAlone(log)
        self._provided = Provided(builds.runtime)
        executor = settings.executor
        self._line = Line(
            persons.of, spool.clock.monotonic, shares.may_begin, memory=executor.memory, slots=executor.slots
        )
        self._line.set_weights(weights(settings.turns.weights))
        self._seen = seen = AllSeen(persons.of, self._line.has_some_of)
        self._ending = ending = Ending(spool, shares, newer)
        notes = spool.queue.path("tmp", f"{executor.process}{Kept.HELD}")
        heartbeat = Heartbeat(settings.lease.renewal, notes)
        self._slots = Slots(
            settings,
            spool,
            builds,
            self._engine,
            self._line,
            heartbeat=heartbeat,
            ending=ending,
            floor=floor,
            newer=newer,
        )
        self._answering = answering = Answering(
            spool, builds, ending, floor=floor, shares=shares, persons=persons, heartbeat=heartbeat
        )
        self._building = Building(
            spool, builds, seen=seen, answering=answering, floor=floor, newer=newer, persons=persons
        )
        self._finder = Finder(settings, spool, seen=seen, line=self._line, building=self._building, answering=answering)
        self._routing = Routing(
            spool,
            builds,
            self._provided,
            answering=answering,
            building=self._building,
            line=self._line,
            backlog=self._finder.backlog,
            floor=floor,
            newer=newer,
            leave=self._seen.leave if executor.route_only else None,
        )
        self._life = Life(executor, spool.clock.monotonic())
        self._stores = Stores(settings, spool.clock)
        self._held: set[int] = set()  # persons whose share is used up
        self._next_note = 0.0  # on the monotonic clock
        self._pace = Pace(lambda: self._line.length, spool.clock.monotonic, executor.slots)

    @property
    def watched(self) -> list[str]:
        """Return the directories, below the spool's root, in which a change is worth a step."""
        return list(self._finder.watched)

    def wants(self, hint: Hint) -> bool:
        """Tell whether a change is worth a step. Another thread calls this."""
        return self._finder.wants(hint)

    def patience(self, wanted: bool) -> float:
        """Return how many seconds changes wait after some, told whether any was wanted. Another thread calls this."""
        return self._finder.patience(wanted)

    def start(self) -> None:
        """Publish what an earlier executor only committed, put back what it held, and begin to renew leases."""
        mend(self._spool.queue, log, [State.RUNNING])
        self._slots.start()
        self._follow_runtime()
        self._engine.look(FIRST_LOOK)
        if self._provided.runtime is None:
            log.info("waiting for the builder to provide the runtime", path=self._builds.runtime.path)

    def hurry(self) -> None:
        """Put back what runs."""
        self._slots.hurry()

    def stuck(self, patience: float) -> str:
        """Say that leases are no longer renewed or that a slot is lost, "" where all is well."""
        return self._slots.stuck(patience)

    @property
    def over(self) -> str:
        """Say why the executor ends by itself, "" while it goes on."""
        now = self._spool.clock.monotonic()
        if self._is_equipped:
            self._life.ready(now)
        return self._life.over(now, max(self._slots.worked(now), self._answering.answered))

    def apply_settings(self, settings: Settings) -> None:
        """Use other settings. Jobs that run keep what they began with."""
        if settings.turns != self._settings.turns and (found := weights_if_known(settings.turns.weights)) is not None:
            self._line.set_weights(found)
        self._settings = settings = fitted(settings)
        self._shares.apply_settings(settings)
        self._floor.apply_settings(settings)
        self._slots.apply_settings(settings)

    def measure(self) -> None:
        """Measure the slots, the line, and the engine."""
        self._slots.measure()
        READY.set(self._line.length)
        if not self._settings.executor.route_only:
            ENGINE_READY.set(self._engine.ready.is_set())
            self._engine.measure()

    def stop(self) -> None:
        """Finish the jobs that run, or put them back after ``drain`` seconds. Take no others, remove the sandboxes."""
        self._slots.stop()
        self._answering.close()
        self._finder.close()
        self._engine.close()

    def step(self, hints: Iterable[Hint] | None = None) -> float:
        """Look at some of what waits. Return the seconds until the next scan, 0 where there is more to look at.

        The entries that ``hints`` name are noted first. Where ``hints`` is None, a scan begins.
        """
        self._answering.give_back_kept()
        self._follow_runtime()
        if self._provided.runtime is None:
            return WITHOUT_RUNTIME
        told = 0
        if hints is None:
            self._persons.look()
            self._finder.begin()
        else:
            told = self._finder.heed(hints)
        self._finder.go_on()
        self._building.end_overdue()
        self._note_usage()
        self._let_those_with_room_begin()
        self._building.show_some()
        self._look_at_some(told)
        if not self._seen:
            self._newer.tell()
        rest = self._pace.rest if self._seen else math.inf
        return 0.0 if not rest or self._building.has_work() or not self._finder.pause else min(rest, self._pause())

    def _follow_runtime(self) -> None:
        if self._provided.changed():
            self._building.clear()
            if self._provided.runtime is not None and not self._settings.executor.route_only:
                self._slots.use_runtime(self._provided.runtime)
        self._engine.look()
        if self._provided.runtime is not None and not self._settings.executor.route_only:
            self._stores.note(self._provided.runtime, self._engine.trouble)

    def _let_those_with_room_begin(self) -> None:
        """Let persons whose share of the spool has room for answers again begin again."""
        self._shares.look()
        self._held = self._line.ask_again()
        for person in self._held:
            self._shares.tell(person, "jobs wait in new/")
        for entry in self._answering.release():
            self._seen.see(Place(State.NEW, entry), FOUND)

    def _note_usage(self) -> None:
        """Let `spoolctl top` know how much each person used. If this note cannot be written, the next one tells it."""
        now = self._spool.clock.monotonic()
        if now < self._next_note or (used := self._line.usage()) is None:
            return
        self._next_note = now + NOTES
        with contextlib.suppress(OSError):
            usage.note(self._spool.root, self._settings.executor.process, used)

    def _pause(self) -> float:
        now = self._spool.clock.monotonic()
        longest = self._settings.spool.scan if self._is_equipped and not (self._held or self._answering) else BACK_OFF
        known = (self._building.next_end, self._seen.rests_until, self._life.ends)
        ends = [end - now for end in known if end is not None]
        return max(0.05, min([longest, self._finder.pause, *ends]))

    @property
    def _is_equipped(self) -> bool:
        """Tell whether the executor has what its work needs."""
        return self._settings.executor.route_only or self._engine.ready.is_set()

    # -- what to do with one submission

    def _look_at_some(self, told: int) -> None:
        """Look at a few entries. An entry is as large as its owner likes, so it may be only one."""
        some = self._pace.some(told)
        began = last = self._spool.clock.monotonic()
        for _ in range(some.most):
            seen = self._seen.take(last)
            if seen is None:
                break
            self._consider(seen)
            last, before = self._spool.clock.monotonic(), last
            self._seen.looked(last - before)
            if last - began >= some.seconds:
                break
        self._pace.looked(last - began)

    def _consider(self, seen: Seen) -> None:
        place = seen.place
        try:
            if place.entry.attempt > 1 and not seen.rested and self._rests(place):
                return
            submission = self._spool.read(*place)
            self._routing.route(place, submission, self._settings.limits)
        except LeaseLostError:
            return  # another executor has the entry
        except NewerFormatError as error:
            self._newer.meet(error)
            self._seen.leave(place)
        except msgspec.DecodeError as error:
            self._ending.set_aside(place, f"the entry cannot be read: {error}")
        except OSError as error:
            log.error("an entry could not be handled; it stays where it is", submission=place.entry.id, error=error)

    def _rests(self, place: Place) -> bool:
        """Let an attempt that is not due yet rest. Return whether it rests."""
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
