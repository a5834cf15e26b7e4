"""Pinning: which CPU a job runs on, where each job is to have one to itself.

A job gets the CPU on which the fewest other jobs run. So it is alone there, while there are no more slots than CPUs.
Among equal CPUs it gets the one that its sandbox has already, since a change costs time. A program and its interactor
are one job, so both have the same CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager


class Pinning:
    """The CPUs that jobs have, by their numbers. Thread-safe."""

    def __init__(self, cpus: Iterable[int]) -> None:
        self._jobs = dict.fromkeys(cpus, 0)
        self._lock = threading.Lock()

    @contextmanager
    def cpu(self, had: int | None = None) -> Iterator[int]:
        """Yield a CPU for one job, which has it until the block ends. ``had`` is the CPU of its sandbox so far."""
        with self._lock:
            chosen = min(self._jobs, key=lambda cpu: (self._jobs[cpu], cpu != had, cpu))
            self._jobs[chosen] += 1
        try:
            yield chosen
        finally:
            with self._lock:
                self._jobs[chosen] -= 1


class Together:
    """A CPU for all parts of one job that run at the same time. Thread-safe."""

    def __init__(self, pinning: Pinning) -> None:
        self._pinning = pinning
        self._parts, self._cpu = 0, -1
        self._held = ExitStack()
        self._lock = threading.Lock()

    @contextmanager
    def cpu(self, had: int | None = None) -> Iterator[int]:
        """Yield the CPU that another part has now, or one as :meth:`Pinning.cpu` does."""
        with self._lock:
            if not self._parts:
                self._cpu = self._held.enter_context(self._pinning.cpu(had))
            self._parts += 1
        try:
            yield self._cpu
        finally:
            with self._lock:
                self._parts -= 1
                if not self._parts:
                    self._held.close()
