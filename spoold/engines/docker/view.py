"""What a job sees of the Nix store: its own closure and the sandbox's own programs, and nothing else.

In a recycled container the cell makes its own view when the job comes; in one of a single job the ``porter`` does.

Where the kernel (before 5.12) or the engine forbids this, jobs see the whole store, which they cannot list, as in
earlier versions; that is said once, or is an error if the settings require views. Whether it works is tried out by a
job that lists its store. Only what the kernel or the engine refuses makes jobs see more: where anything else fails, no
job is run. Once it has worked, its failure is never a reason to show more: a container that could not be given its view
is thrown away.
"""

from __future__ import annotations

import threading

from spoold.engines.docker.connection import DockerConnection, ImageGoneError
from spoold.engines.docker.container import Container, start
from spoold.engines.docker.porter import GoneError, PorterOnDuty
from spoold.engines.docker.walls import DockerPlan
from spoold.host.log import Log
from spoold.model.errors import OperatorError, TemporaryError
from spoold.model.job import Job, JobResult, trial_job
from spoold.sandbox.live import OnOutput
from spoold.sandbox.parts import OnPhase, Part
from spoold.sandbox.runner import Runner
from spoold.sandbox.stream import BrokenError, RefusedError

log = Log("sandbox")

STORE = "/nix/store/"


class View:
    """What the jobs of one sandbox see. ``narrow`` tells whether that is their own closure; None: not known yet."""

    def __init__(self, engine: DockerConnection) -> None:
        self._engine = engine
        self._porter = PorterOnDuty(engine)
        self.narrow: bool | None = None

    def try_out(self, plan: DockerPlan) -> None:
        """Find out whether a job can be made to see its closure only, by a job that lists its store."""
        wish = plan.settings.sandbox.view
        if wish == "off" or not plan.runtime.closure:
            if wish == "required":
                raise OperatorError("sandbox.view is required, but the builder does not say what the runtime needs")
            self.narrow = False
            return
        failure = self._fails(plan) and self._fails(plan)  # an engine that ends and comes back fails it once
        if failure is None:
            self.narrow = True
            return
        if wish == "required":
            raise OperatorError(f"sandbox.view is required, but not possible here: {failure}") from failure
        if not isinstance(failure, RefusedError):
            raise failure
        if self.narrow is None:
            log.warning("jobs see the whole Nix store, unlisted, not just their own closure of it", reason=failure)
        self.narrow = False

    def _fails(self, plan: DockerPlan) -> TemporaryError | None:
        """Return why no view can be had; raises where the reason is an engine that is away, or a bug of ours."""
        try:
            self._probe(plan)
        except TemporaryError as error:
            if self.narrow or isinstance(error, ImageGoneError):
                raise
            self._porter.close()
            with self._engine.client() as api:
                api.ping()
            return error
        return None

    def _probe(self, plan: DockerPlan) -> None:
        """Raise :class:`RefusedError` where a view is refused here, and other errors for whatever else is wrong."""
        job = trial_job("probe", b"#!/bin/sh\ncd /nix/store && echo *", plan.settings.limits.run.default)
        try:
            container = start(self._engine, plan, threading.Event())
        except RefusedError as error:  # one has started before, so this is no matter of the view
            raise TemporaryError(str(error)) from error
        try:
            if not plan.recycled and container.transport.ready.kernel != self._porter.kernel(plan):
                raise RefusedError("the runtime gives containers a kernel of their own, out of the porter's reach")
            names = self._narrowed(container, job)
            seen = container.run(job, lambda *_: None, threading.Event(), names).run.stdout.split()
        except GoneError as error:
            if not container.alive():
                raise
            raise RefusedError(f"the engine does not let a container be found by its process: {error}") from error
        finally:
            container.close()
        if sorted(seen) != sorted(path.rpartition("/")[2] for path in plan.runtime.closure):
            raise BrokenError(f"the view of the store is not what it should be: {len(seen)} entries")

    def cover(self, container: Runner[Container]) -> None:
        """Do ahead of its job what needs no names; see ``PorterOnDuty.cover``."""
        if self.narrow and not container.plan.recycled:
            self._porter.cover(container.transport.plan, container.transport.pid, container.transport.id)

    def run(
        self,
        container: Runner[Container],
        job: Job,
        on_phase: OnPhase,
        cancelled: threading.Event,
        *,
        part: Part,
        on_output: OnOutput | None = None,
    ) -> JobResult:
        """Run part of a job that sees its own closure only, where that is possible here and the job has one."""
        if self.narrow and job.closure:
            return container.run(
                job, on_phase, cancelled, self._narrowed(container, job), part=part, on_output=on_output
            )
        return container.run(job, on_phase, cancelled, part=part, on_output=on_output)

    def _narrowed(self, container: Runner[Container], job: Job) -> list[str]:
        """Return the entries of the store that a job is to see; in a container of its own it sees no others now."""
        names = entries(container.transport.plan, job.closure)
        if not container.plan.recycled:
            self._porter.give_view(container.transport.plan, container.transport.pid, container.transport.id, names)
        return names

    def close(self) -> None:
        """Remove the porter."""
        self._porter.close()


def entries(plan: DockerPlan, closure: list[str]) -> list[str]:
    """Return the names in the store of what a job with ``closure`` sees: that and what the runtime needs."""
    return sorted({_name(path) for path in (*closure, *plan.runtime.closure)})


def _name(path: str) -> str:
    name = path.removeprefix(STORE)
    if name == path or not name or "/" in name or name in (".", ".."):
        raise OperatorError(f"{path!a} in a closure is no store path: is {STORE[:-1]} what the builder uses?")
    return name
