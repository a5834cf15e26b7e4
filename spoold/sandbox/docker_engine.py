"""The sandbox on Docker: one container per job, removed after it.

``prepare`` is where everything is checked that would otherwise fail each job: the engine answers, limits its
containers, has our image and starts it. It may be called again at any time, also while jobs run. ``run`` may be called
from many threads. See ``walls`` for what holds a job.

Labels say whose a container is: one of the same executor and spool that another process made is an orphan, since only
one executor of a name works on a spool.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable

from spoold.config import Settings
from spoold.host.log import Log
from spoold.model.errors import OperatorError, TemporaryError
from spoold.model.job import Job, JobResult, Runtime
from spoold.model.response import Phase
from spoold.sandbox import image
from spoold.sandbox.container import Container, remove
from spoold.sandbox.engine import Engine, ImageGoneError
from spoold.sandbox.walls import Plan, Size, held

log = Log("sandbox")

PROCESS = uuid.uuid4().hex
SECCOMP_FILTER = 2  # as /proc/self/status says it


class DockerSandbox:
    """Runs jobs in containers of the engine that the settings name."""

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._settings, self._runtime = settings, runtime
        self._engine = Engine(settings.docker.host)
        self._family = {"spoold.executor": settings.executor.name, "spoold.spool": settings.spool.path}
        self._labels = self._family | {"spoold.process": PROCESS, "spoold.sandbox": uuid.uuid4().hex}
        self._plan: Plan | None = None

    def prepare(self) -> None:
        """Connect, check the engine, make the image, start a container on trial, remove what was left behind."""
        with self._engine.client() as api:
            information = api.info()
            name = image.ensure(api, self._runtime, self._labels)
        for what in ("MemoryLimit", "PidsLimit"):
            if not information.get(what):
                raise OperatorError(
                    f"Docker at {self._engine.where} cannot enforce limits ({what} is off): "
                    "the engine needs the cgroup controllers memory and pids; a rootless engine needs cgroup v2"
                )
        self._remove(self._family, spare=PROCESS)
        self._plan = self._try_plan(name)

    def _try_plan(self, name: str) -> Plan:
        """Return a plan under which a container starts.

        With NetworkDisabled the engine saves itself half the work of a start. Whether it takes that is tried out;
        network mode "none" stands in any case.
        """
        plan = Plan(self._settings, self._runtime, name, self._labels, network_disabled=True)
        try:
            self._probe(plan)
        except TemporaryError as error:
            log.info("no start with NetworkDisabled, trying without", error=error)
            plan = Plan(self._settings, self._runtime, name, self._labels, network_disabled=False)
            self._probe(plan)
        return plan

    def _probe(self, plan: Plan) -> None:
        container = Container(self._engine, plan, self._default_size(), threading.Event())
        try:
            ready = container.ready
        finally:
            container.close()
        if not ready.no_new_privileges:
            raise OperatorError(f"Docker at {self._engine.where} ignores no-new-privileges: upgrade the engine")
        if ready.seccomp != SECCOMP_FILTER and not self._settings.docker.runtime:
            raise OperatorError(
                f"Docker at {self._engine.where} runs containers without its seccomp profile: "
                "remove seccomp=unconfined from the engine's options, or use a kernel with seccomp"
            )

    def _default_size(self) -> Size:
        return Size.of(self._settings.limits.run.default, 0)

    def run(self, job: Job, on_phase: Callable[[str, Phase], None], cancelled: threading.Event) -> JobResult:
        """Run one job in a container of its own."""
        if self._plan is None:
            raise TemporaryError("the sandbox is not prepared")
        container = self._start(self._plan, Size.of(job.compile or job.run, held(job)), cancelled)
        try:
            return container.run(job, on_phase, cancelled)
        finally:
            container.close()

    def _start(self, plan: Plan, size: Size, cancelled: threading.Event) -> Container:
        try:
            return Container(self._engine, plan, size, cancelled)
        except ImageGoneError:  # "docker image prune" takes what no container uses at the moment
            log.info("the image is gone; making it again", image=plan.image)
            with self._engine.client() as api:
                image.ensure(api, self._runtime, self._labels)
            return Container(self._engine, plan, size, cancelled)

    def close(self) -> None:
        """Stop and remove what is left of this sandbox."""
        self._remove(self._labels)

    def _remove(self, labels: dict[str, str], spare: str = "") -> None:
        wanted = [f"{key}={value}" for key, value in labels.items()]
        with self._engine.client() as api:
            for found in api.containers(all=True, filters={"label": wanted}):
                if found["Labels"].get("spoold.process") != spare:
                    log.info("removing a container", container=found["Id"][:12])
                    remove(self._engine, api, found["Id"])
