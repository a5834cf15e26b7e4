"""The engine's life in an executor: made for a runtime, checked, replaced when the runtime changes, closed.

``ready`` is set while the engine answers. An engine that is away clears it, and nothing is taken to it until a check
finds it back: an outage costs no submission an attempt. One that takes calls and does not answer holds up a check for
as long as the engine's time-outs, so whoever has other things to do has a thread look (``look``).
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
PAUSE = 1.0  # seconds between two looks for an engine that is away
CLOSE_TIMEOUT = 90.0  # seconds for a look to end when all is closed


@runtime_checkable
class Resting(Protocol):
    """An engine that keeps things ready for jobs to come."""

    def rest(self) -> None:
        """Keep nothing ready any more; jobs go on."""


@runtime_checkable
class Limited(Protocol):
    """An engine whose things are made for the operator's limits."""

    def go_by(self, limits: Limits) -> None:
        """Make what is kept ready for other limits; jobs that run keep theirs."""


@runtime_checkable
class Measured(Protocol):
    """An engine that has something to measure."""

    def measure(self) -> None:
        """Measure it."""


class EngineMonitor:
    """Holds the current sandbox engine; ``make`` makes one for a runtime. Thread-safe."""

    def __init__(self, make: Callable[[Runtime], Sandbox]) -> None:
        self._make = make
        self._made: list[Sandbox] = []
        self._limits: Limits | None = None  # others than ``make`` knows
        self._checking = threading.Lock()
        self._began = self._ended = float("-inf")  # the last check, on the monotonic clock
        self._looking: threading.Thread | None = None
        self._failure = ""
        self.trouble = ""  # why it cannot be used, as far as is known
        self.ready = threading.Event()

    @property
    def sandbox(self) -> Sandbox | None:
        """Return the engine for the latest runtime."""
        return self._made[-1] if self._made else None

    def use(self, runtime: Runtime) -> None:
        """Make an engine for ``runtime``. Jobs that run in the one before go on; it is closed with all others."""
        for before in self._made:
            if isinstance(before, Resting):
                before.rest()
        self._made.append(self._make(runtime))
        if self._limits is not None:
            self.go_by(self._limits)
        self._ended = float("-inf")
        self.ready.clear()

    def go_by(self, limits: Limits) -> None:
        """Go by other limits from now on, also in engines that are made later."""
        self._limits = limits
        sandbox = self.sandbox
        if isinstance(sandbox, Limited):
            sandbox.go_by(limits)

    def measure(self) -> None:
        """Measure the current engine, where there is something to."""
        sandbox = self.sandbox
        if isinstance(sandbox, Measured):
            sandbox.measure()

    def look(self, patience: float = 0.0) -> None:
        """Have a thread look for an engine that is not ready; wait for it ``patience`` seconds at most."""
        if self.ready.is_set() or self.sandbox is None:
            return
        if not (self._looking and self._looking.is_alive()) and time.monotonic() >= self._ended + PAUSE:
            self._looking = threading.Thread(target=self.check, name="engine", daemon=True)
            self._looking.start()
        if self._looking:
            self._looking.join(patience)

    def check(self) -> bool:
        """Tell whether the engine answers, and set ``ready`` accordingly.

        Of many that ask while a check goes on, the next makes one for all.
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
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look may find the engine well
            self.ready.clear()
            if repr(error) == self._failure:
                pass  # it was said
            elif not isinstance(error, (TemporaryError, OperatorError)):
                log.bug("the engine could not be checked; no work is taken until it can", error=error)
            else:
                log.error("the engine cannot be used; no work is taken until it can", error=error)
            self._failure, self.trouble = repr(error), str(error)
        else:
            if self._failure:
                log.info("the engine is back")
            self._failure = self.trouble = ""
            if sandbox is self.sandbox:  # else the latest one has yet to be prepared
                self.ready.set()

    def close(self) -> None:
        """Remove everything."""
        if self._looking:
            self._looking.join(CLOSE_TIMEOUT)
        for sandbox in self._made:
            sandbox.close()
