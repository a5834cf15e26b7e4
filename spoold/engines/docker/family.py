"""Labels of containers: they tell whose a container is, so that none is left without an owner.

A container of the same executor and spool that another process made is an orphan, since only one executor of a name
works on a spool. Its jobs ended with their streams. A container of this process is an orphan unless it is ``known``
(``attached``).
"""

from __future__ import annotations

import threading
import uuid

from spoold.config import Settings
from spoold.engines.docker.attached import known, remove
from spoold.engines.docker.connection import DockerConnection
from spoold.host.log import Log
from spoold.model.errors import SpooldError
from spoold.sandbox.pool import CLOSE_TIMEOUT

log = Log("sandbox")

PROCESS = uuid.uuid4().hex


class Family:
    """The containers of an executor on a spool; ``labels`` are those of one sandbox in this process."""

    def __init__(self, engine: DockerConnection, settings: Settings) -> None:
        self._engine = engine
        self._shared = {"spoold.executor": settings.executor.name, "spoold.spool": settings.spool.path}
        self.labels = self._shared | {"spoold.process": PROCESS, "spoold.sandbox": uuid.uuid4().hex}
        self._removal = threading.Thread()

    def remove_orphans(self) -> None:
        """Begin to remove orphans."""

        def remove_them() -> None:
            try:
                self._remove(self._shared, spare=PROCESS)
            except SpooldError as error:
                log.warning("containers of an earlier process could not be removed yet", error=error)

        if not self._removal.is_alive():
            self._removal = threading.Thread(target=remove_them, name="orphans", daemon=True)
            self._removal.start()

    def settle(self) -> None:
        """Wait until the removal of orphans has ended."""
        if self._removal.is_alive():
            self._removal.join(CLOSE_TIMEOUT)

    def remove_own(self) -> None:
        """Remove the containers that are left of this sandbox. Those that stay are orphans to the next process."""
        try:
            self._remove(self.labels)
        except SpooldError as error:
            log.warning("containers could not be removed; the next executor removes them", error=error)

    def _remove(self, labels: dict[str, str], spare: str = "") -> None:
        wanted = [f"{key}={value}" for key, value in labels.items()]
        with self._engine.client() as api:
            for found in api.containers(all=True, filters={"label": wanted}):
                ours = found["Labels"].get("spoold.process") == spare
                if not (ours and known.intersection(name.lstrip("/") for name in found["Names"])):
                    log.info("removing a container that is left over", container=found["Id"][:12])
                    remove(self._engine, api, found["Id"])
