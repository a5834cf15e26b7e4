"""A container for jobs: created, attached before it starts, and started. ``walls`` has what it is allowed."""

from __future__ import annotations

import threading
import time
from typing import Any

import docker

from spoold.engines.docker.attached import START_TIMEOUT, AttachedContainer
from spoold.engines.docker.connection import ANSWER_TIMEOUT, DockerConnection
from spoold.engines.docker.framing import Attached
from spoold.engines.docker.line import Listener
from spoold.engines.docker.walls import DockerPlan, configuration
from spoold.model.errors import TemporaryError
from spoold.sandbox.facts import HOLDERS
from spoold.sandbox.runner import Runner
from spoold.sandbox.sizes import Size
from spoold.sandbox.stream import Pipe

LOSS_TIMEOUT = 5.0  # seconds to find out why a container was lost


class Container(AttachedContainer):
    """A container whose supervisor waits for a job, see :class:`spoold.sandbox.transport.Transport`."""

    def __init__(
        self, engine: DockerConnection, plan: DockerPlan, cancelled: threading.Event, holder: int, size: Size
    ) -> None:
        self.plan, self._holder = plan, holder
        self.size = size
        self.cpu: int | None = None  # the only CPU that it runs on
        self.pid = 0  # of the supervisor, as the engine's host counts
        self.has_line = False
        self._listener = Listener() if plan.line else None
        try:
            super().__init__(engine, cancelled)
        finally:
            if self._listener:
                self._listener.close()

    def _configuration(self) -> dict[str, Any]:
        line = self._listener.directory if self._listener else ""
        return configuration(self._api, self.plan, self.size, self._holder, line)

    def _called(self, attached: Attached) -> Pipe | None:
        line = self._listener.answer(attached, START_TIMEOUT) if self._listener else None
        self.has_line = line is not None
        return line

    def _start(self, cancelled: threading.Event) -> None:
        super()._start(cancelled)
        self.pid = self._api.inspect_container(self.id)["State"]["Pid"]

    def resize(self, size: Size) -> None:
        """Give it this size, unless it has that already. The engine knows both versions of control groups."""
        if size == self.size:
            return
        change = {"Memory": size.memory, "MemorySwap": size.memory, "PidsLimit": size.processes}
        if size.halved != self.size.halved and self.plan.shares:
            change["CpuShares"] = self.plan.shares.half if size.halved else self.plan.shares.full
        self._update(change)
        self.size = size

    def pin(self, cpu: int) -> None:
        """Bind all of it to this CPU, unless it is bound to that already."""
        if cpu == self.cpu:
            return
        self._update({"CpusetCpus": str(cpu)})
        self.cpu = cpu

    def _update(self, change: dict[str, Any]) -> None:
        url = f"{self._api.base_url}/v{self._api.api_version}/containers/{self.id}/update"
        with self._engine.errors():
            answer = self._api.post(url, json=change, timeout=ANSWER_TIMEOUT)
        if answer.status_code >= 400:
            raise TemporaryError(f"Docker at {self._engine.where} cannot change a limit: {answer.text[:500]}")

    def lacked_memory(self) -> bool:
        """Tell whether it ended for want of memory. The engine may learn of that a little late."""
        deadline = time.monotonic() + LOSS_TIMEOUT
        with self._engine.errors():
            while True:
                try:
                    state = self._api.inspect_container(self.id)["State"]
                except docker.errors.NotFound:
                    return False
                if not state.get("Running"):
                    return bool(state.get("OOMKilled"))
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.05)


def start(
    engine: DockerConnection,
    plan: DockerPlan,
    cancelled: threading.Event,
    holder: int = HOLDERS.start,
    size: Size | None = None,
) -> Runner[Container]:
    """Return a started container that waits for a job; without a size it has that of jobs with default limits."""
    size = size or plan.size(plan.settings.limits.run.default)
    return Runner(Container(engine, plan, cancelled, holder, size), plan)
