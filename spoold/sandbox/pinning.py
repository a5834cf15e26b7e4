"""Pinning: which CPU a job runs on, where each job is to have one to itself.

A job gets the CPU on which the fewest other jobs run. So it is alone there, while there are no more slots than CPUs.
Among equal CPUs it gets the one that its sandbox has already, since a change costs time.
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
        """Yield a CPU for one job, which has it until the block ends. ``had`` is the CPU of its sandbox so far."""
        with self._lock:
            chosen = min(self._jobs, key=lambda cpu: (self._jobs[cpu], cpu != had, cpu))
            self._jobs[chosen] += 1
        try:
            yield chosen
        finally:
            with self._lock:
                self._jobs[chosen] -= 1
