"""The engine's life in an executor: made for a runtime, checked, replaced when the runtime changes, closed.

``ready`` is set while the engine answers. It is cleared when the engine is away. Then no job goes to the engine until a
check finds it back, so an outage costs no submission an attempt. An engine that takes calls and does not answer holds
up a check for as long as the engine's time-outs. So a caller that has other things to do uses ``look``, which checks in
a thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from spoold.host.log import Log
from spoold.model.errors import OperatorError, TemporaryError
from spoold.model.job import Runtime
from spoold.model.limits import Limits
from spoold.sandbox import Sandbox

log = Log("sandbox")
PAUSE = 1.0  # seconds between two checks of an engine that is away
CLOSE_TIMEOUT = 90.0  # seconds for a check to end when everything is closed


@runtime_checkable
class Resting(Protocol):
    """An engine that keeps things ready for future jobs."""

    def rest(self) -> None:
        """Keep nothing ready any more; running jobs go on."""


@runtime_checkable
class Limited(Protocol):
    """An engine that makes things to fit the operator's limits."""

    def go_by(self, limits: Limits) -> None:
        """Make ready for other limits; running jobs keep theirs."""


@runtime_checkable
class Measured(Protocol):
    """An engine that has metrics."""

    def measure(self) -> None:
        """Update the metrics."""


class EngineMonitor:
    """Holds the current sandbox engine. ``make`` makes an engine for a runtime. Thread-safe."""

    def __init__(self, make: Callable[[Runtime], Sandbox]) -> None:
        self._make = make
        self._made: list[Sandbox] = []
        self._limits: Limits | None = None  # newer limits than those that ``make`` knows
        self._checking = threading.Lock()
        self._began = self._ended = float("-inf")  # of the last check, on the monotonic clock
        self._looking: threading.Thread | None = None
        self._failure = ""
        self.trouble = ""  # why the engine cannot be used, as far as is known
        self.ready = threading.Event()

    @property
    def sandbox(self) -> Sandbox | None:
        """Return the engine for the latest runtime."""
        return self._made[-1] if self._made else None

    def use(self, runtime: Runtime) -> None:
        """Make an engine for ``runtime``. Jobs in the engine before it go on. All engines are closed together."""
        for before in self._made:
            if isinstance(before, Resting):
                before.rest()
        self._made.append(self._make(runtime))
        if self._limits is not None:
            self.go_by(self._limits)
        self._ended = float("-inf")
        self.ready.clear()

    def go_by(self, limits: Limits) -> None:
        """Use other limits from now on, also in engines that are made later."""
        self._limits = limits
        sandbox = self.sandbox
        if isinstance(sandbox, Limited):
            sandbox.go_by(limits)

    def measure(self) -> None:
        """Update the metrics of the current engine, where it has any."""
        sandbox = self.sandbox
        if isinstance(sandbox, Measured):
            sandbox.measure()

    def look(self, patience: float = 0.0) -> None:
        """Start a check in a thread where the engine is not ready; wait up to ``patience`` seconds for it to end."""
        if self.ready.is_set() or self.sandbox is None:
            return
        if not (self._looking and self._looking.is_alive()) and time.monotonic() >= self._ended + PAUSE:
            self._looking = threading.Thread(target=self.check, name="engine", daemon=True)
            self._looking.start()
        if self._looking:
            self._looking.join(patience)

    def check(self) -> bool:
        """Tell whether the engine answers, and set ``ready`` accordingly.

        Threads that ask while a check goes on share the next one.
        """
        asked = time.monotonic()
        with self._checking:
            if self._began < asked:
                self._began = time.monotonic()
                self._check()
                self._ended = time.monotonic()
            return self.ready.is_set()

    def _check(self) -> None:
        sandbox = self.sandbox
        if sandbox is None:
            return
        try:
            sandbox.prepare()
        except Exception as error:  # noqa: BLE001 - whatever the error is, the next check may find the engine well
            self.ready.clear()
            if repr(error) == self._failure:
                pass  # this was logged already
            elif not isinstance(error, (TemporaryError, OperatorError)):
                log.bug("the engine could not be checked; no work is taken until it can", error=error)
            else:
                log.error("the engine cannot be used; no work is taken until it can", error=error)
            self._failure, self.trouble = repr(error), str(error)
        else:
            if self._failure:
                log.info("the engine is back")
            self._failure = self.trouble = ""
            if sandbox is self.sandbox:  # else the latest engine has yet to be prepared
                self.ready.set()

    def close(self) -> None:
        """Close all engines, once a check that still runs has ended."""
        if self._looking:
            self._looking.join(CLOSE_TIMEOUT)
        for sandbox in self._made:
            sandbox.close()
