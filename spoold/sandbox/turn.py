"""The containers of one submission: one for its whole job, or for each part of it, one after the other."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self

from spoold.host.log import Log
from spoold.model.job import Job, JobResult
from spoold.sandbox.live import OnOutput
from spoold.sandbox.parts import OnPhase, Part
from spoold.sandbox.pinning import Together
from spoold.sandbox.pool import Pool
from spoold.sandbox.runner import Carrier, Runner
from spoold.sandbox.transport import UnusableError
from spoold.sandbox.view import View

log = Log("sandbox")

TRIES = 3  # containers that are tried before a job is given up


class Turn(Generic[Carrier]):
    """Runs parts of a job. A container that can serve the next part is kept. Others are given back at once.

    ``replaced`` returns a container of the size that a part needs, in place of one that cannot be given that size.
    ``is_current`` tells whether new containers would now be made like the one that it is given. ``on_output`` hears of
    a live job.
    """

    def __init__(
        self,
        pool: Pool[Carrier],
        view: View[Carrier, Any],
        pinning: Together | None,
        *,
        replaced: Callable[[Runner[Carrier], Job, Part], Runner[Carrier]],
        is_current: Callable[[Runner[Carrier]], bool],
        cancelled: threading.Event,
        on_output: OnOutput | None = None,
    ) -> None:
        self._pool, self._view, self._pinning = pool, view, pinning
        self._replaced, self._is_current = replaced, is_current
        self._cancelled, self._on_output = cancelled, on_output
        self._container: Runner[Carrier] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    def run(self, job: Job, part: Part, on_phase: OnPhase) -> JobResult:
        """Run a part in a container that no other job is in; then keep the container or give it back."""
        for _ in range(TRIES - 1):
            try:
                return self._run(job, part, on_phase)
            except UnusableError as error:  # nothing of the job has been sent yet
                log.info("a container cannot be used; taking another", reason=error)
        return self._run(job, part, on_phase)

    def _run(self, job: Job, part: Part, on_phase: OnPhase) -> JobResult:
        container = self._container or self._pool.take(self._cancelled, job.owner, job.closure)
        self._container = container
        try:
            if not container.fits(job, part):
                self._container = container = self._replaced(container, job, part)
            with self._pinned(container):
                result = self._view.run(container, job, on_phase, self._cancelled, part=part, on_output=self._on_output)
        except BaseException:  # an interrupt too
            container.stop()  # something of the job may still run, and the container may be removed much later
            container.reusable = False
            self._give_back()
            raise
        if not container.reusable:
            self._give_back()
        return result

    def _give_back(self) -> None:
        container, self._container = self._container, None
        if container is None:
            return
        if not (container.light or container.reusable):
            container.stop()  # frees now what the job left in memory, not when there is time to remove the container
        self._pool.give(container, again=container.reusable and self._is_current(container))

    @contextlib.contextmanager
    def _pinned(self, container: Runner[Carrier]) -> Iterator[None]:
        """Give a container's job a CPU of its own, where the settings want that."""
        if self._pinning is None:
            yield
            return
        with self._pinning.cpu(container.transport.cpu) as cpu:
            container.transport.pin(cpu)
            yield
