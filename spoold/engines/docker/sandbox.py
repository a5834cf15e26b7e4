"""The sandbox on Docker: a container for each job, or for many in turn, taken from a pool of waiting ones.

``prepare`` checks everything that would otherwise fail each job: the engine answers, isolates and limits its containers
(``checks``), has our image and starts it (``trial``). It may be called again at any time, also while jobs run. See
``walls`` for what holds a job, ``family`` for whose a container is.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace

import docker

from spoold.config import Settings
from spoold.engines.docker import checks, image, shares, trial
from spoold.engines.docker.connection import DockerConnection, ImageGoneError
from spoold.engines.docker.container import Container, start
from spoold.engines.docker.family import Family
from spoold.engines.docker.image import Image
from spoold.engines.docker.view import View
from spoold.engines.docker.walls import DockerPlan
from spoold.host.log import Log
from spoold.model.errors import OperatorError
from spoold.model.findings import refuse
from spoold.model.job import Runtime
from spoold.sandbox.pinning import Pinning
from spoold.sandbox.pooled import PooledSandbox
from spoold.sandbox.runner import Runner
from spoold.sandbox.sizes import Size

log = Log("sandbox")


class DockerSandbox(PooledSandbox[Container, DockerPlan]):
    """Runs jobs in containers of the engine that the settings name."""

    _view: View

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        super().__init__(settings, runtime)
        self._engine = DockerConnection(settings.docker.host)
        self._family = Family(self._engine, settings)
        self._view = View(self._engine)
        self._imaging = threading.Lock()
        self._elsewhere = False  # whether it was logged that the store cannot be looked at

    def prepare(self) -> None:
        """Connect, check the engine, make the image, start a container on trial, remove what was left behind."""
        self._check_nix_shell()
        with self._preparing:
            with self._engine.client() as api:
                information = api.info()
                refuse(checks.of_engine(information, self._settings), f"Docker at {self._engine.where}")
                store = self._store()
                made = self._ensure_image(api)
            self._family.remove_orphans()
            unified = information.get("CgroupVersion") == "2"
            first = DockerPlan(
                settings=self._settings,
                runtime=self._runtime,
                image=made,
                store=store,
                labels=self._family.labels,
                network_disabled=True,
                unified=unified,
                shares=shares.VERSION_2 if unified else shares.VERSION_1,
                remapped="name=userns" in (information.get("SecurityOptions") or ()),
            )
            with self._porter_beside(first):
                plan, tried = trial.find_plan(self._engine, first, list(information.get("Runtimes") or ()))
            with contextlib.closing(tried):  # while the first containers for jobs are made
                self._check_pinning(plan, information.get("NCPU") or 1)
                self._view.try_out(plan, tried)
                if not self._view.narrow and not plan.recycled:
                    plan = trial.with_names(self._engine, plan)
                with self._planning:
                    self._fill(plan, information.get("MemTotal") or 0)
            with self._engine.client() as api:
                image.remove_old(api, made.name)

    @contextlib.contextmanager
    def _porter_beside(self, plan: DockerPlan) -> Iterator[None]:
        """Start the porter meanwhile. It and the container on trial do not wait for each other."""
        starting = threading.Thread(target=self._view.make_ready, args=(plan,), name="porter", daemon=True)
        starting.start()
        is_refused = True
        try:
            yield
            is_refused = False
        finally:
            starting.join()
            if is_refused:
                self._view.close()  # maybe nobody closes a sandbox that was never ready

    def _check_pinning(self, plan: DockerPlan, cpus: int) -> None:
        """Check that jobs can be pinned, where the settings want that, on a host with ``cpus`` CPUs."""
        if not self._settings.sandbox.pin_cpus:
            return
        if not plan.resizable:
            raise OperatorError(
                "sandbox.pin_cpus is set, but the runtime cannot move a running container to another CPU: "
                "unset it, or choose another docker.runtime"
            )
        if self._elsewhere:
            self._pinning = Pinning(range(cpus))

    def _store(self) -> str:
        """Return the directory of the engine's host that jobs get as their store."""
        found = checks.store(self._settings.nix, self._engine.where)
        if found is None and not self._elsewhere:
            self._elsewhere = True
            log.warning(
                "the engine may be on another host: nothing checks who can change the directories above its store",
                engine=self._engine.where,
                store=self._settings.nix.physical_store,
            )
        return found or self._settings.nix.physical_store

    def _ensure_image(self, api: docker.APIClient) -> Image:
        with self._imaging:  # of many threads that miss it one makes it, and the others find that one
            return image.ensure(api, self._runtime)

    def _make(self, plan: DockerPlan, cancelled: threading.Event, size: Size | None = None) -> Runner[Container]:
        return start(self._engine, plan, cancelled, next(self._holders), size)

    def _start(self, cancelled: threading.Event) -> Runner[Container]:
        plan = self._plan
        assert plan is not None  # noqa: S101 - prepare() set it before it made the pool that calls this
        try:
            made = self._make(plan, cancelled)
        except ImageGoneError:  # "docker image prune" removes an image that no container uses at the moment
            log.info("the image is gone; making it again", image=plan.image.name)
            with self._engine.client() as api:
                again = replace(plan, image=self._ensure_image(api))
            with self._planning:
                if self._plan is plan:
                    self._plan = again
            made = self._make(again, cancelled)
        self._view.cover(made)
        return made

    @property
    def started(self) -> str:
        """Return how containers start, in words for the doctor."""
        return f"start with {(self._plan and self._plan.oci) or 'the default runtime'}"

    def close(self) -> None:
        """Stop and remove what is left of this sandbox. Containers that stay are orphans to the next process."""
        super().close()
        self._family.settle()
        self._view.close()
        self._family.remove_own()
