"""The loop of one actor: arm the watch, scan, then wait for hints. A scan on a timer is the backstop.

The loop tells whether it is alive: either it turns, or something happens in the step that it is in. It takes over new
settings between two steps. What fails: after an error of the host a step is tried again. A bug ends the thread, and the
process with it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from spoold.config import Settings
from spoold.host import pulse
from spoold.host.log import Log
from spoold.host.metrics import STEP_FAILURES
from spoold.model.errors import TemporaryError
from spoold.model.ids import Hint
from spoold.model.states import Role
from spoold.watch import Watch

log = Log("daemon")
RETRY = 5.0  # seconds until an actor whose start failed for the moment is started again
REST = 4.0  # the pause after a scan is this many times as long as the scan took
LONGEST_REST = 60.0  # seconds of such a pause, at most


class Actor(Protocol):
    """What the loop needs from an actor."""

    @property
    def watched(self) -> list[str]:
        """Return the directories to watch, below the spool's root."""

    def start(self) -> None:
        """Get ready for the first step. Raises :class:`TemporaryError` where a later try may succeed."""

    def step(self, hints: Iterable[Hint] | None = None) -> float:
        """Do what there is to do for ``hints``, or look at everything where they are None.

        Returns the seconds until the next scan, or 0 where there is more to do at once.
        """

    def apply_settings(self, settings: Settings) -> None:
        """Use these settings from now on. Only those of ``config.live.LIVE`` may differ. Called between two steps."""

    def stuck(self, patience: float) -> str:
        """Name a thread of the actor that gave no sign of life for ``patience`` seconds, "" where all did.

        Any thread may call this.
        """

    def measure(self) -> None:
        """Set the actor's metrics. Another thread calls this, so it may be slow."""

    def hurry(self) -> None:
        """Do not take the time to finish what runs. Another thread calls this, before or during ``stop``."""

    def stop(self) -> None:
        """Finish what runs, and end."""


@runtime_checkable
class Choosy(Protocol):
    """An actor that does not need to hear of every change."""

    def wants(self, hint: Hint) -> bool:
        """Tell whether a change is worth a step. Another thread calls this."""

    def patience(self, wanted: bool) -> float:
        """Return how many seconds changes wait after some, told whether any was wanted. Another thread calls this."""


@runtime_checkable
class Mortal(Protocol):
    """An actor that may end by itself."""

    @property
    def over(self) -> str:
        """Say why the actor ends now, "" while it goes on."""


class Loop(threading.Thread):
    """The thread of one actor. ``failure`` is the error that ended it, if there was one."""

    def __init__(self, settings: Settings, role: Role, actor: Actor) -> None:
        super().__init__(name=role)
        self.role = role
        self._settings = settings
        self._other_settings: Settings | None = None
        self._actor = actor
        spool = settings.spool
        options: dict[str, Any] = {}
        if isinstance(actor, Choosy):
            options = {"wants": actor.wants, "patience": actor.patience}
        self._watch = Watch(spool.path, actor.watched, remote=spool.remote, poll=spool.remote_scan, **options)
        self._stopping = threading.Event()
        self._rests_until = 0.0  # on the monotonic clock: until then it may do nothing
        self.started = threading.Event()
        self.failure: Exception | None = None

    def stop(self) -> None:
        """Ask the loop to drain and end. When it is called a second time, ask it to end at once."""
        if self._stopping.is_set():
            self._actor.hurry()
        self._stopping.set()
        self._watch.wake()

    def apply_settings(self, settings: Settings) -> None:
        """Make the actor use other settings, soon."""
        self._other_settings = settings
        self._watch.wake()

    def stuck(self, patience: float) -> str:
        """Say what gave no sign of life for ``patience`` seconds, "" where all is well.

        While the actor starts or stops this is always "", since others bound that time.
        """
        if self._stopping.is_set() or not self.started.is_set():
            return ""
        silent = pulse.silence(self, self._rests_until)
        if silent > patience:
            return f"{self.name}: in a step in which nothing has happened for {silent:.0f} s"
        return self._actor.stuck(patience)

    def measure(self) -> None:
        """Measure the actor, once it has started."""
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
            os.kill(os.getpid(), signal.SIGTERM)  # no role runs on without the others
        finally:
            self.started.set()

    def _start_actor(self) -> None:
        while True:
            try:
                self._actor.start()
            except TemporaryError as error:
                log.error("cannot start yet; trying again", role=self.name, error=error)
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
                self._rests_until = next_scan
                hints = self._watch.pending() if more else self._watch.wait(next_scan - now)
            if self._stopping.is_set():
                break
            self._take_over_settings()
            if hints is None and time.monotonic() < scanned:
                hints, next_scan = [], min(next_scan, scanned)
            began = self._rests_until = time.monotonic()
            if hints is None:
                self._watch.start()  # in case it could not be armed before
            delay = self._step(hints)
            ended = time.monotonic()
            more = delay == 0.0
            if hints is None:
                # However many entries there are, listing them takes only a small part of the time.
                scanned = ended + min(LONGEST_REST, (ended - began) * REST)
                next_scan = max(scanned, ended + (delay or self._settings.spool.scan))
            elif not more:
                next_scan = max(scanned, min(next_scan, ended + delay))
            self.started.set()
            if isinstance(self._actor, Mortal) and (why := self._actor.over):
                log.info("this daemon ends by itself", role=self.name, why=why)
                os.kill(os.getpid(), signal.SIGTERM)  # no role runs on without the others
                self._stopping.wait()

    def _take_over_settings(self) -> None:
        other, self._other_settings = self._other_settings, None
        if other is not None:
            self._settings = other
            self._actor.apply_settings(other)

    def _step(self, hints: list[Hint] | None) -> float:
        try:
            return self._actor.step(hints)
        except (TemporaryError, OSError) as error:
            STEP_FAILURES.add()
            log.error("a step failed; trying again", role=self.name, error=error)
            return RETRY
