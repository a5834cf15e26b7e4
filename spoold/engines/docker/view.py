"""The view of the Nix store in Docker's containers. Cells make it in a recycled one, else the ``porter`` does."""

from __future__ import annotations

import contextlib
import threading

from spoold.engines.docker.connection import DockerConnection, ImageGoneError
from spoold.engines.docker.container import Container, start
from spoold.engines.docker.porter import GoneError, PorterOnDuty
from spoold.engines.docker.walls import DockerPlan
from spoold.model.errors import SpooldError, TemporaryError
from spoold.model.job import Job
from spoold.sandbox import view
from spoold.sandbox.runner import Runner
from spoold.sandbox.stream import BrokenError, RefusedError


class View(view.View[Container, DockerPlan]):
    """The view that the jobs of one sandbox have, see :class:`spoold.sandbox.view.View`."""

    def __init__(self, engine: DockerConnection) -> None:
        self._engine = engine
        self._porter = PorterOnDuty(engine)

    def make_ready(self, plan: DockerPlan) -> None:
        """Start the porter, if jobs will need it. Errors are left to the trial of the view, which starts it again."""
        if not plan.cells and plan.settings.sandbox.view != "off" and plan.runtime.closure:
            with contextlib.suppress(SpooldError, BrokenError):
                self._porter.kernel(plan)

    def _start(self, plan: DockerPlan) -> Runner[Container]:
        return start(self._engine, plan, threading.Event())

    def _failed(self, error: TemporaryError) -> None:
        if isinstance(error, ImageGoneError):
            raise error
        self._porter.close()
        with self._engine.client() as api:
            api.ping()

    def _seen(self, container: Runner[Container], job: Job) -> list[str]:
        plan = container.transport.plan
        if not plan.cells and container.transport.ready.kernel != self._porter.kernel(plan):
            raise RefusedError("the runtime gives containers a kernel of their own, out of the porter's reach")
        try:
            return super()._seen(container, job)
        except GoneError as error:
            if not container.alive():
                raise
            raise RefusedError(f"the engine does not tell which process a container is: {error}") from error

    def cover(self, container: Runner[Container]) -> None:
        """Before the job comes, do what needs no names, see ``PorterOnDuty.cover``."""
        if self.narrow and not container.plan.cells:
            self._porter.cover(container.transport.plan, container.transport.pid, container.transport.id)

    def _narrowed(self, container: Runner[Container], job: Job) -> list[str]:
        names = super()._narrowed(container, job)
        if not container.plan.cells:
            self._porter.give_view(container.transport.plan, container.transport.pid, container.transport.id, names)
        return names

    def close(self) -> None:
        """Remove the porter."""
        self._porter.close()
