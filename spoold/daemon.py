"""The composition root: makes an actor from the settings, and runs it until it is told to stop.

One process runs one role, or all of them for a desk or a demo. The loop is the same for each: arm the watch, scan, then
wait for hints, with a scan on a timer as the backstop. SIGTERM and SIGINT drain: what runs is finished, nothing new is
taken. One process of a role per spool (and name): a lock file says so before anything is touched.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Protocol

from filelock import FileLock, Timeout

from spoold.config import Settings
from spoold.host import textfile
from spoold.host.log import Log
from spoold.host.metrics import STEP_FAILURES
from spoold.host.notify import notify
from spoold.model.errors import OperatorError, TemporaryError
from spoold.model.ids import Hint
from spoold.spool import layout
from spoold.spool.presence import Presence
from spoold.watch import Watch

log = Log("daemon")
TICK = 1.0  # seconds after which the main thread looks whether a signal came
RETRY = 5.0  # seconds until an actor whose start met a temporary failure is started again
REST = 4.0  # for how many times as long as a scan took there is no other
LONGEST_REST = 60.0  # seconds


class Actor(Protocol):
    """What the loop needs of an actor."""

    @property
    def watched(self) -> list[str]:
        """Directories below the spool's root."""

    def start(self) -> None:
        """Begin."""

    def step(self, hints: Iterable[Hint] | None = None) -> float:
        """Do what is to do; None: look at everything. Returns seconds until the next scan; 0: there is more to do."""

    def measure(self) -> None:
        """Set what is measured of it; called by another thread, and slow things are allowed."""

    def stop(self) -> None:
        """Drain."""


# Each imports its own needs only: together with the others' a process would take a third more memory.


def _intake(settings: Settings) -> Actor:
    from spoold.actors.intake import Intake  # noqa: PLC0415

    return Intake(settings)


def _executor(settings: Settings) -> Actor:
    from spoold.actors.executor import Executor  # noqa: PLC0415
    from spoold.sandbox.docker_engine import DockerSandbox  # noqa: PLC0415

    return Executor(settings, lambda runtime: DockerSandbox(settings, runtime))


def _builder(settings: Settings) -> Actor:
    from spoold.actors.builder import Builder  # noqa: PLC0415
    from spoold.nix.build import NixBuilder  # noqa: PLC0415

    return Builder(settings, NixBuilder(settings))


def _health(settings: Settings) -> Actor:
    from spoold.actors.health import Health  # noqa: PLC0415

    return Health(settings)


ROLES: dict[str, Callable[[Settings], Actor]] = {
    "intake": _intake,
    "executor": _executor,
    "builder": _builder,
    "health": _health,
}


def serve(settings: Settings, roles: list[str], ready: Callable[[], None] = lambda: None) -> None:
    """Run ``roles`` until SIGTERM or SIGINT; ``ready`` is called once all have started and scanned.

    Raises :class:`OperatorError` when a role cannot start or runs already.
    """
    layout.check(settings.spool.path)
    loops = [Loop(settings, role) for role in roles]
    with contextlib.ExitStack() as held:
        for role in roles:
            _hold_role(settings, role, held)
        _stop_on_signals(loops)
        held.enter_context(_measured(settings, loops))
        _run(loops, settings, ready)
    for loop in loops:
        if loop.failure is not None:
            raise loop.failure


def _run(loops: list[Loop], settings: Settings, ready: Callable[[], None]) -> None:
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.started.wait()
    if all(loop.failure is None for loop in loops):
        notify("READY=1")
        log.info("ready", roles=",".join(loop.name for loop in loops), spool=settings.spool.path)
        ready()
    for loop in loops:
        # Python handles signals in this thread alone, and the kernel may give one to another (to any that runs already,
        # when a process that was stopped goes on): so this one has to wake up now and then.
        while loop.is_alive():
            loop.join(TICK)


def _measured(settings: Settings, loops: list[Loop]) -> contextlib.AbstractContextManager[None]:
    """Keep the file of what is measured, where the settings want one."""
    where = settings.metrics
    if not where.directory:
        return contextlib.nullcontext()
    roles = [loop.name for loop in loops]
    return textfile.kept(
        where.directory,
        where.interval,
        spool=settings.spool.path,
        daemon=_process_name(settings, roles[0]) if len(roles) == 1 else "all",
        roles=roles,
        measures=[loop.measure for loop in loops],
    )


def _process_name(settings: Settings, role: str) -> str:
    """Return what tells the process of a role from all others on this spool."""
    return f"{role}-{settings.executor.name}" if role == "executor" else role


def _hold_role(settings: Settings, role: str, held: contextlib.ExitStack) -> None:
    """Be the one process of a role: on this host by a lock, among hosts by presence."""
    name = _process_name(settings, role)
    hint = "; give it another [executor] name to run two" if role == "executor" else ""
    lock = FileLock(os.path.join(settings.spool.path, "tmp", f"{name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OperatorError(f"{settings.spool.path}: a {name} runs on this spool already{hint}") from None
    held.callback(lock.release)
    presence = Presence(settings.spool.path, name, settings.lease, lost=_end_this_process)
    try:
        presence.take()
    except OperatorError as error:
        raise OperatorError(f"{error}{hint}") from None
    held.callback(presence.give_up)


def _end_this_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _stop_on_signals(loops: list[Loop]) -> None:
    def stop(number: int, _frame: FrameType | None) -> None:
        log.info("stopping: finishing what runs", signal=signal.Signals(number).name)
        notify("STOPPING=1")
        for loop in loops:
            loop.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


class Loop(threading.Thread):
    """The thread of one actor. ``failure`` is what ended it, if something did."""

    def __init__(self, settings: Settings, role: str) -> None:
        super().__init__(name=role)
        self._settings = settings
        self._actor = ROLES[role](settings)
        spool = settings.spool
        self._watch = Watch(spool.path, self._actor.watched, remote=spool.remote, poll=spool.remote_scan)
        self._stopping = threading.Event()
        self.started = threading.Event()
        self.failure: Exception | None = None

    def stop(self) -> None:
        """Ask the loop to drain and end."""
        self._stopping.set()
        self._watch.wake()

    def measure(self) -> None:
        """Have the actor measured, once it has started."""
        if self.started.is_set():
            self._actor.measure()

    def run(self) -> None:
        """Run the actor until it is stopped."""
        try:
            self._start_actor()
            try:
                self._turn()
            finally:
                self._watch.stop()
                self._actor.stop()
        except Exception as error:  # noqa: BLE001 - raised again by serve(), in the main thread
            self.failure = error
            os.kill(os.getpid(), signal.SIGTERM)  # the roles stand and fall together
        finally:
            self.started.set()

    def _start_actor(self) -> None:
        while True:
            try:
                self._actor.start()
            except TemporaryError as error:
                log.error("cannot start yet", role=self.name, error=error)
                if self._stopping.wait(RETRY):
                    return
            else:
                return

    def _turn(self) -> None:
        scanned, next_scan, more = 0.0, 0.0, False
        while not self._stopping.is_set():
            now = time.monotonic()
            hints = None
            if now < next_scan:
                hints = self._watch.pending() if more else self._watch.wait(next_scan - now)
            if self._stopping.is_set():
                break
            if hints is None and time.monotonic() < scanned:
                hints, next_scan = [], min(next_scan, scanned)
            began = time.monotonic()
            if hints is None:
                self._watch.start()  # where it could not be armed before
            delay = self._step(hints)
            ended = time.monotonic()
            more = delay == 0.0
            if hints is None:
                # However much lies there, to list it takes a small part of the time.
                scanned = ended + min(LONGEST_REST, (ended - began) * REST)
                next_scan = max(scanned, ended + (delay or self._settings.spool.scan))
            elif not more:
                next_scan = max(scanned, min(next_scan, ended + delay))
            self.started.set()

    def _step(self, hints: list[Hint] | None) -> float:
        try:
            return self._actor.step(hints)
        except (TemporaryError, OSError) as error:
            STEP_FAILURES.add()
            log.error("a step failed; trying again", role=self.name, error=error)
            return RETRY
