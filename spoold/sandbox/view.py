"""What a job sees of the Nix store: its own closure and the sandbox's own programs, and nothing else.

In a sandbox with cells (``Plan.cells``) the cell makes the job's view when the job comes. In any other sandbox the
engine makes it (``_narrowed``).

Where the kernel (before 5.12) or the engine forbids views, jobs see the whole store, but cannot list it, as in earlier
versions. That is logged once, or is an error where the settings require views. A job that lists its store shows whether
views work. Jobs see more only where the kernel or the engine refuses views. Where anything else fails, no job is run.
Once views have worked, a failure is never a reason to show more: a container that could not be given its view is thrown
away.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Generic

from spoold.host.log import Log
from spoold.model.errors import OperatorError, TemporaryError
from spoold.model.job import Job, JobResult, trial_job
from spoold.sandbox.live import OnOutput
from spoold.sandbox.parts import OnPhase, Part
from spoold.sandbox.runner import Carrier, Runner
from spoold.sandbox.sizes import Plan, Planned
from spoold.sandbox.stream import BrokenError, RefusedError

log = Log("sandbox")

STORE = "/nix/store/"


class View(Generic[Carrier, Planned]):
    """The view of the jobs of one sandbox. ``narrow``: whether they see only their own closure; None: not known yet."""

    narrow: bool | None = None

    def _start(self, plan: Planned) -> Runner[Carrier]:
        """Return a container on trial."""
        raise NotImplementedError

    def try_out(self, plan: Planned, tried: Runner[Carrier]) -> None:
        """Find out whether jobs can be made to see only their closure, by a job that lists its store.

        The job runs in ``tried``, a container on trial that the caller closes. A second try gets a new container.
        """
        wish = plan.settings.sandbox.view
        if wish == "off" or not plan.runtime.closure:
            if wish == "required":
                raise OperatorError("sandbox.view is required, but the builder does not name the paths of the runtime")
            self.narrow = False
            return
        # An engine that ends and comes back makes only one try fail.
        failure = self._fails(plan, tried) and self._fails(plan)
        if failure is None:
            self.narrow = True
            return
        if wish == "required":
            raise OperatorError(f"sandbox.view is required, but not possible here: {failure}") from failure
        if not isinstance(failure, RefusedError):
            raise failure
        if self.narrow is None:
            log.warning("jobs see the whole Nix store, though unlisted, and not only their own closure", reason=failure)
        self.narrow = False

    def _fails(self, plan: Planned, tried: Runner[Carrier] | None = None) -> TemporaryError | None:
        """Return why there can be no view, else None; raises where the engine is away, or for a bug of ours."""
        try:
            if tried:
                self._probe(tried)
            else:
                with contextlib.closing(self._again(plan)) as container:
                    self._probe(container)
        except TemporaryError as error:
            if self.narrow:
                raise
            self._failed(error)
            return error
        return None

    def _failed(self, error: TemporaryError) -> None:
        """Raise an error where something other than the kernel prevents views, such as an engine that is away."""

    def _again(self, plan: Planned) -> Runner[Carrier]:
        try:
            return self._start(plan)
        except RefusedError as error:  # a container has started before, so views are not the cause
            raise TemporaryError(str(error)) from error

    def _probe(self, container: Runner[Carrier]) -> None:
        """Raise :class:`RefusedError` where a view is refused here, and other errors for other failures."""
        plan = container.plan
        job = trial_job("probe", b"#!/bin/sh\ncd /nix/store && echo *", plan.settings.limits.run.default)
        seen = self._seen(container, job)
        if sorted(seen) != sorted(path.rpartition("/")[2] for path in plan.runtime.closure):
            raise BrokenError(f"the view of the store is not what it should be: {len(seen)} entries")

    def _seen(self, container: Runner[Carrier], job: Job) -> list[str]:
        """Return what the job on trial lists of its store."""
        names = self._narrowed(container, job)
        return container.run(job, lambda *_: None, threading.Event(), names).run.stdout.split()

    def run(
        self,
        container: Runner[Carrier],
        job: Job,
        on_phase: OnPhase,
        cancelled: threading.Event,
        *,
        part: Part,
        on_output: OnOutput | None = None,
    ) -> JobResult:
        """Run part of a job. It sees only its own closure, where that is possible here and the job has one."""
        if self.narrow and job.closure:
            return container.run(
                job, on_phase, cancelled, self._narrowed(container, job), part=part, on_output=on_output
            )
        return container.run(job, on_phase, cancelled, part=part, on_output=on_output)

    def _narrowed(self, container: Runner[Carrier], job: Job) -> list[str]:
        """Return the entries of the store that a job is to see. Without cells, make the container show only these."""
        return entries(container.plan, job.closure)

    def close(self) -> None:
        """Remove what is left."""


def entries(plan: Plan, closure: list[str]) -> list[str]:
    """Return the names in the store that a job with ``closure`` sees: its closure, and what the runtime needs."""
    return sorted({_name(path) for path in (*closure, *plan.runtime.closure)})


def _name(path: str) -> str:
    name = path.removeprefix(STORE)
    if name == path or not name or "/" in name or name in (".", ".."):
        raise OperatorError(f"{path!a} in a closure is not a store path: the builder has to use {STORE[:-1]}")
    return name
