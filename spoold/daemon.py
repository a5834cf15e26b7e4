"""The composition root: makes an actor from the settings, and runs it until it is told to stop.

One process runs one role, or all roles for a desk or a demo. Each role has a loop of its own. The main thread handles
signals and looks after the loops. The first SIGTERM or SIGINT drains: the process finishes what runs and takes nothing
new. A second one puts back what runs. SIGHUP reads the settings again. As long as all loops are alive, the process says
so to the service manager, which restarts a process that says nothing any more. Per spool, one process of a role (and
name) runs at a time: it takes a lock file before it touches anything.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from types import FrameType

from filelock import FileLock, Timeout

from spoold.config import Settings
from spoold.config.live import take_over
from spoold.host import fsops, memory, textfile
from spoold.host.log import Log
from spoold.host.notify import notify
from spoold.host.persons import weights
from spoold.loop import Actor, Loop
from spoold.model.errors import OperatorError
from spoold.model.ids import Kept
from spoold.model.states import Role
from spoold.spool import layout, lists
from spoold.upkeep import leavings
from spoold.upkeep.presence import Presence

log = Log("daemon")
TICK = 1.0  # seconds between two looks of the main thread whether a signal came
LOOKS = 4  # signs of life within the time that the service manager waits for one
DRAINED = 30.0  # seconds that a drain may take beyond the time for which jobs may go on


# Each function imports only what its actor needs. A process that imported all of them would take a third more memory.


def _intake(settings: Settings) -> Actor:
    from spoold.actors.intake import Intake  # noqa: PLC0415

    return Intake(settings)


def _executor(settings: Settings) -> Actor:
    from spoold.actors.executor import Executor  # noqa: PLC0415
    from spoold.actors.executor.admission import fitted  # noqa: PLC0415
    from spoold.engines import find  # noqa: PLC0415

    settings = fitted(settings)
    engine = find(settings.sandbox.engine)
    return Executor(settings, lambda runtime: engine.make(settings, runtime))


def _builder(settings: Settings) -> Actor:
    from spoold.actors.builder import Builder  # noqa: PLC0415
    from spoold.nix.build import NixBuilder  # noqa: PLC0415

    return Builder(settings, NixBuilder(settings))


def _health(settings: Settings) -> Actor:
    from spoold.actors.health import Health  # noqa: PLC0415

    return Health(settings)


def _scale(settings: Settings) -> Actor:
    from spoold.actors.scale import Scale  # noqa: PLC0415

    return Scale(settings)


ROLES: dict[Role, Callable[[Settings], Actor]] = {
    Role.INTAKE: _intake,
    Role.EXECUTOR: _executor,
    Role.BUILDER: _builder,
    Role.HEALTH: _health,
    Role.SCALE: _scale,
}


def serve(settings: Settings, roles: list[Role], reload: Callable[[], Settings] | None = None) -> None:
    """Run ``roles`` until SIGTERM or SIGINT. ``reload`` reads the settings again, at SIGHUP.

    Raises :class:`OperatorError` when a role cannot start or already runs.
    """
    memory.share_arena()
    layout.check(settings.spool.path)
    if settings.spool.published_by == "executor" or roles != [Role.EXECUTOR]:  # otherwise it lets nobody read
        lists.require(settings)
    loops = [Loop(settings, role, ROLES[role](settings)) for role in roles]
    with contextlib.ExitStack() as held:
        for role in roles:
            _hold_role(settings, role, held)
        held.enter_context(_measured(settings, loops))
        Main(settings, loops, reload).run()
    for loop in loops:
        if loop.failure is not None:
            raise loop.failure


class Main:
    """The main thread: starts the loops, handles signals and reports to the service manager."""

    def __init__(self, settings: Settings, loops: list[Loop], reload: Callable[[], Settings] | None) -> None:
        self._settings = settings
        self._loops = loops
        self._reload = reload
        self._wants_reload = False
        jobs = any(each.role is Role.EXECUTOR for each in loops)
        self._stops_within = DRAINED + (settings.executor.drain if jobs else 0.0)
        microseconds = os.environ.get("WATCHDOG_USEC", "0") if _is_for_us("WATCHDOG_PID") else "0"
        self._watchdog = int(microseconds) / 1e6  # seconds within which a sign of life is due. 0: nobody waits for it
        self._told = 0.0  # on the monotonic clock
        self._stuck = ""

    def run(self) -> None:
        """Run the loops until all of them have ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_hangup)
        for loop in self._loops:
            loop.start()
        for loop in self._loops:
            # Python handles signals in this thread alone, but the kernel may deliver one to another thread. When a
            # stopped process is continued, that can be any thread that already runs. So this thread has to wake up now
            # and then.
            while not loop.started.wait(TICK):
                pass
        memory.give_back()  # what starting up took
        if all(loop.failure is None for loop in self._loops):
            notify("READY=1")
            names = ",".join(loop.name for loop in self._loops)
            log.info("ready", roles=names, spool=self._settings.spool.path)
        unused = memory.Unused()
        for loop in self._loops:
            while loop.is_alive():
                self._tell_that_we_live()
                unused.step()
                if self._wants_reload:
                    self._wants_reload = False
                    self._take_over_settings()
                loop.join(TICK)

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        log.info("stopping: running work is finished; a second signal puts it back", signal=signal.Signals(number).name)
        notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={self._stops_within * 1e6:.0f}")
        for loop in self._loops:
            loop.stop()

    def _on_hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._wants_reload = True

    def _tell_that_we_live(self) -> None:
        """Tell the service manager that all loops are alive. Log a loop that is stuck once, and send nothing then."""
        now = time.monotonic()
        if not self._watchdog or now - self._told < self._watchdog / LOOKS:
            return
        stuck = next((found for loop in self._loops if (found := loop.stuck(self._watchdog / 2))), "")
        if not stuck:
            notify("WATCHDOG=1")
            self._told = now
        elif stuck != self._stuck:
            log.error("this process is stuck; the service manager will start it again", found=stuck)
        self._stuck = stuck

    def _take_over_settings(self) -> None:
        """Read the settings again. If they are wrong or cannot be read, keep the present ones."""
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            wanted = self._reload() if self._reload else self._settings
            weights(wanted.turns.weights)  # raises where they are wrong
        except OperatorError as error:
            log.error("the settings cannot be taken over; all stays as it was", error=error)
        else:
            change = take_over(self._settings, wanted)
            self._settings = change.settings
            for loop in self._loops:
                loop.apply_settings(change.settings)
            log.info("settings read again", taken_over=",".join(change.taken_over) or "nothing new")
            if change.left:
                log.warning("settings that need a restart have changed", left_as_they_were=",".join(change.left))
        notify("READY=1")


def _is_for_us(variable: str) -> bool:
    """Tell whether this variable of the service manager names this process, or is not set."""
    return os.environ.get(variable, str(os.getpid())) == str(os.getpid())


def _measured(settings: Settings, loops: list[Loop]) -> contextlib.AbstractContextManager[None]:
    """Keep the file of metrics up to date, where the settings ask for one."""
    where = settings.metrics
    if not where.directory:
        return contextlib.nullcontext()
    roles = [loop.role for loop in loops]
    return textfile.kept(
        where.directory,
        where.interval,
        spool=settings.spool.path,
        daemon=_process_name(settings, roles[0]) if len(roles) == 1 else "all",
        roles=roles,
        measures=[loop.measure for loop in loops],
    )


def _process_name(settings: Settings, role: Role) -> str:
    """Return the name that tells this role's process from all others on this spool."""
    return settings.executor.process if role is Role.EXECUTOR else role


def _hold_role(settings: Settings, role: Role, held: contextlib.ExitStack) -> None:
    """Make this process the only one of its role: by a lock on this host, by presence among hosts."""
    name = _process_name(settings, role)
    hint = "; to run a second one, give it another [executor] name" if role is Role.EXECUTOR else ""
    path = os.path.join(settings.spool.path, "tmp", f"{name}{Kept.LOCK}")
    lock = FileLock(path, mode=fsops.own_mode(path))  # also a file that root made by hand
    try:
        lock.acquire(timeout=0)
        while not fsops.exists(path):  # the process before us removed the file after we had opened it
            lock.release()
            lock.acquire(timeout=0)
    except Timeout:
        raise OperatorError(f"{settings.spool.path}: {name} runs on this spool already{hint}") from None
    held.callback(lock.release)
    presence = Presence(settings.spool.path, name, settings.lease, lost=_end_this_process)
    try:
        presence.take()
    except OperatorError as error:
        raise OperatorError(f"{error}{hint}") from None
    leaves = role is Role.EXECUTOR and settings.executor.is_of_a_pool
    held.callback(_give_up, settings, name, presence, leaves_nothing=leaves)


def _give_up(settings: Settings, name: str, presence: Presence, *, leaves_nothing: bool) -> None:
    if presence.give_up() and leaves_nothing:
        leavings.clear(settings.spool.path, name)


def _end_this_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
