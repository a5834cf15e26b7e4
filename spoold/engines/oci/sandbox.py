"""The sandbox on an OCI runtime alone: a container for each job, or for many in turn, from a pool of waiting ones.

``prepare`` checks everything that would otherwise fail each job. Limits must hold: control groups can be made, and a
container on trial is in one. See ``walls`` for what holds a job, ``container`` for its life, ``place`` for what is on
disk and for orphans.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace

from spoold.config import Settings
from spoold.engines.oci import host
from spoold.engines.oci.container import Container, on_trial, start
from spoold.engines.oci.place import Place
from spoold.engines.oci.walls import OciPlan
from spoold.host import groups, machine
from spoold.host.log import Log
from spoold.model.errors import OperatorError, TemporaryError
from spoold.model.findings import refuse
from spoold.model.job import Runtime
from spoold.sandbox import checks
from spoold.sandbox.pooled import PooledSandbox
from spoold.sandbox.runner import Runner
from spoold.sandbox.sizes import Size
from spoold.sandbox.view import View

log = Log("sandbox")

CAUSES = checks.Causes(
    privileges="upgrade the runtime, or choose another: oci.runtime",
    seccomp="use a kernel with seccomp, and a runtime that was built with it: oci.runtime",
    memory="the runtime ignores the control group that it is given: upgrade it, or choose another: oci.runtime",
)


class OciView(View[Container, OciPlan]):
    """The view of the store that the jobs of one sandbox have. Their cells make it."""

    def _start(self, plan: OciPlan) -> Runner[Container]:
        return on_trial(plan)


class OciSandbox(PooledSandbox[Container, OciPlan]):
    """Runs jobs in containers of the runtime that the settings name."""

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        super().__init__(settings, runtime)
        self._place = Place(settings)
        self._view = OciView()

    def prepare(self) -> None:
        """Check the host, make the root of containers, start one on trial, remove what was left behind."""
        self._check_nix_shell()
        with self._preparing:
            made = groups.settle()
            if self._settings.sandbox.pin_cpus and not made.has("cpuset"):
                raise OperatorError(
                    "sandbox.pin_cpus is set, but control groups here cannot bind a job to a CPU: delegate the "
                    "controller cpuset, or unset sandbox.pin_cpus"
                )
            ids = host.ids()
            store = checks.store(self._settings.nix)
            self._place.prepare()
            self._place.remove_orphans()
            first = OciPlan(
                settings=self._settings,
                runtime=self._runtime,
                oci="",
                place=self._place.path,
                root=self._place.root(self._runtime),
                store=store,
                groups=made,
                ids=ids,
            )
            plan, tried = find_plan(first, host.runtimes(self._settings, made))
            with contextlib.closing(tried):  # while the first containers for jobs are made
                self._view.try_out(plan, tried)
                with self._planning:
                    self._fill(plan, machine.memory())

    def _make(self, plan: OciPlan, cancelled: threading.Event, size: Size | None = None) -> Runner[Container]:
        return start(plan, cancelled, next(self._holders), size)

    @property
    def started(self) -> str:
        """Return how containers start, in words for the doctor."""
        assert self._plan is not None  # noqa: S101 - the caller has prepared it
        return f"start with {self._plan.oci}"

    def close(self) -> None:
        """Stop and remove what is left of this sandbox. Containers that stay are orphans to the next process."""
        super().close()
        self._place.close()


def find_plan(plan: OciPlan, runtimes: list[str]) -> tuple[OciPlan, Runner[Container]]:
    """Return a plan with the first of ``runtimes`` that starts a container, and that container.

    The caller closes it. Raises what the last one raised.
    """
    *others, last = [replace(plan, oci=each) for each in runtimes]
    for variant in others:
        try:
            return _tried(variant)
        except (TemporaryError, OperatorError) as error:
            log.info("no container starts with this runtime; trying another", runtime=variant.oci, error=error)
    return _tried(last)


def _tried(plan: OciPlan) -> tuple[OciPlan, Runner[Container]]:
    """Start a container, and look at it from inside; return the plan and it."""
    try:
        container = on_trial(plan)
    except TemporaryError as error:
        if not checks.of_cells(error):
            raise
        raise OperatorError(
            f"containers of this engine need user namespaces within them (see sysctl {checks.SWITCHES}): {error}"
        ) from error
    try:
        asked = container.transport.size.memory
        refuse(checks.of_container(container.transport.ready, asked, CAUSES), plan.oci)
    except BaseException:  # any error, also an interrupt: no container may be left that nobody knows of
        container.close()
        raise
    return plan, container
