"""The engine's life in an executor: made for a runtime, checked, replaced when the runtime changes, closed.

``ready`` is set while the engine answers. An engine that is away clears it, and nothing is taken to it until a check
finds it back: an outage costs no submission an attempt.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from spoold.host.log import Log
from spoold.model.errors import OperatorError, TemporaryError
from spoold.model.job import Runtime
from spoold.sandbox import Sandbox

log = Log("sandbox")


@runtime_checkable
class Resting(Protocol):
    """An engine that keeps things ready for jobs to come."""

    def rest(self) -> None:
        """Keep nothing ready any more; jobs go on."""


@runtime_checkable
class Measured(Protocol):
    """An engine that has something to measure."""

    def measure(self) -> None:
        """Measure it."""


class Engine:
    """Holds the current sandbox engine; ``make`` makes one for a runtime. Thread-safe."""

    def __init__(self, make: Callable[[Runtime], Sandbox]) -> None:
        self._make = make
        self._made: list[Sandbox] = []
        self._checking = threading.Lock()
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
        self.ready.clear()

    def measure(self) -> None:
        """Measure the current engine, where there is something to."""
        sandbox = self.sandbox
        if isinstance(sandbox, Measured):
            sandbox.measure()

    def check(self) -> bool:
        """Tell whether the engine answers, and set ``ready`` accordingly."""
        with self._checking:
            sandbox = self.sandbox
            if sandbox is None:
                return False
            try:
                sandbox.prepare()
            except (TemporaryError, OperatorError) as error:
                self.ready.clear()
                log.error("the engine cannot be used; no work is taken until it can", error=error)
                return False
            self.ready.set()
            return True

    def close(self) -> None:
        """Remove everything."""
        for sandbox in self._made:
            sandbox.close()
