"""Pinning: which CPU a job runs on, where each is to have one to itself.

A job gets the CPU that fewest others run on, so with no more slots than CPUs it is alone there. Of those that are equal
it is the one that its sandbox has already, since a change costs time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Pinning:
    """The CPUs that jobs have, by their numbers. Thread-safe."""

    def __init__(self, cpus: Iterable[int]) -> None:
        self._jobs = dict.fromkeys(cpus, 0)
        self._lock = threading.Lock()

    @contextmanager
    def cpu(self, had: int | None = None) -> Iterator[int]:
        """Yield a CPU for one job, whose sandbox ``had`` that one before; it has it while this lasts."""
        with self._lock:
            chosen = min(self._jobs, key=lambda cpu: (self._jobs[cpu], cpu != had, cpu))
            self._jobs[chosen] += 1
        try:
            yield chosen
        finally:
            with self._lock:
                self._jobs[chosen] -= 1
