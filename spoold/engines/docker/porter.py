"""The porter: it changes, from outside, what a container of a single job sees.

A waiting container is made before its job is known, with the whole store in it. Before anything of the job is sent, the
*porter* replaces the store in that container by a view. This is a read-only tmpfs that holds a mount for each path that
the job may see, out of a layer of its own (``inside/store.c``). ``inside/porter.c`` says how that is done. As soon as
there is a container, the porter also covers what the kernel tells of the host (``inside/masks.c``).

The porter is one more container for each executor. It has the rights to mount in another container's namespace, so the
executor needs nothing but the engine's socket. The porter sees neither jobs nor the network. Everybody who may use that
socket could have made it themselves.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from docker.types import LogConfig, Mount

from spoold.engines.docker.attached import AttachedContainer
from spoold.engines.docker.connection import DockerConnection
from spoold.engines.docker.walls import DockerPlan
from spoold.host.log import Log
from spoold.model.errors import SpooldError
from spoold.model.limits import MIB
from spoold.sandbox import wire
from spoold.sandbox.messages import Failed, GiveView, Gone, ViewGiven
from spoold.sandbox.program import IN_IMAGE, PORTER
from spoold.sandbox.stream import BrokenError, ClosedError, text, unlimited
from spoold.sandbox.transport import UnusableError

log = Log("sandbox")

ROLE = "spoold.role"
VIEW_TIMEOUT = 10.0  # seconds for one view
MEMORY, PROCESSES = 64 * MIB, 16  # of the porter


class GoneError(UnusableError):
    """The porter does not find the container: it has ended, or the engine keeps it where nobody else can look."""


class Porter(AttachedContainer):
    """The container that changes what others see."""

    def __init__(self, engine: DockerConnection, plan: DockerPlan, cancelled: threading.Event) -> None:
        self._plan = plan
        super().__init__(engine, cancelled)

    def _configuration(self) -> dict[str, Any]:
        host = self._api.create_host_config(
            network_mode="none",
            pid_mode="host",
            userns_mode="host",
            read_only=True,
            cap_drop=["ALL"],
            # To mount, to look up a namespace, and to enter it.
            cap_add=["SYS_ADMIN", "SYS_PTRACE", "SYS_CHROOT", *(["DAC_READ_SEARCH"] if self._plan.remapped else [])],
            security_opt=["no-new-privileges", "seccomp=unconfined", "apparmor=unconfined", "label=disable"],
            mem_limit=MEMORY,
            memswap_limit=MEMORY,
            pids_limit=PROCESSES,
            mounts=[Mount("/nix/store", self._plan.store, type="bind", read_only=True, propagation="rprivate")],
            log_config=LogConfig(type="none"),
        )
        return {
            "image": self._plan.image.id,
            "entrypoint": [IN_IMAGE, PORTER],
            "user": "0:0",
            "stdin_open": True,
            "network_disabled": self._plan.network_disabled,
            "labels": self._plan.labels | {ROLE: "porter"},
            "host_config": host,
        }

    def give_view(self, pid: int, container: str, names: list[str]) -> None:
        """Let the container see only these entries of the store."""
        order = GiveView(pid=pid, container=container.encode(), paths=[os.fsencode(name) for name in names])
        self.stream.send([wire.frame(order)], VIEW_TIMEOUT)
        answer = self.stream.message(VIEW_TIMEOUT, ViewGiven, Gone, Failed)
        if isinstance(answer, Gone):
            raise GoneError(f"the container is gone: {text(answer.reason)}")
        if isinstance(answer, Failed):
            raise unlimited(answer)


class PorterOnDuty:
    """The porter of an executor. Thread-safe. A porter that has died is replaced."""

    def __init__(self, engine: DockerConnection) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._porter: Porter | None = None

    def give_view(self, plan: DockerPlan, pid: int, container: str, names: list[str]) -> None:
        """Let ``container``, whose first process is ``pid``, see only these entries of the store."""
        with self._lock:
            try:
                self._present(plan).give_view(pid, container, names)
            except ClosedError as error:
                self._drop()
                raise UnusableError(f"the porter was lost: {error}") from error

    def cover(self, plan: DockerPlan, pid: int, container: str) -> None:
        """Before the job comes, do what needs no names. Where that fails, ``give_view`` does it."""
        try:
            self.give_view(plan, pid, container, [])
        except SpooldError as error:
            log.info("files of /proc and /sys about the host are covered only when the job comes", reason=error)
        except BrokenError as error:  # the next call makes a new porter
            log.bug("the porter failed", error=error)

    def kernel(self, plan: DockerPlan) -> bytes:
        """Return the kernel in which the porter can mount, as ``Ready`` names it."""
        with self._lock:
            return self._present(plan).ready.kernel

    def _present(self, plan: DockerPlan) -> Porter:
        if self._porter is None or not self._porter.stream.silent():
            self._drop()
            self._porter = Porter(self._engine, plan, threading.Event())
        return self._porter

    def _drop(self) -> None:
        if self._porter is not None:
            self._porter.close()
            self._porter = None

    def close(self) -> None:
        """Remove the porter."""
        with self._lock:
            self._drop()
