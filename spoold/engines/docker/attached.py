"""A container that is made, attached and started, and whose program says that it is ready; the end of its life too."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import docker

from spoold.engines.docker.connection import DockerConnection
from spoold.engines.docker.framing import Attached
from spoold.host.log import Log
from spoold.model.errors import SpooldError, TemporaryError
from spoold.sandbox.stream import ClosedError, Pipe, Stream

log = Log("sandbox")


START_TIMEOUT = 60.0  # seconds from start to "ready"
EXIT_TIMEOUT = 1.0  # seconds for a program that was told to stop to end by itself
PAUSE = 0.02  # seconds; about as long as the engine takes to notice
# The names of this process's containers, from before the engine makes them until somebody removes them. Whatever else
# of this process the engine has is an orphan: it was not answered when it made it, or did not when it was to remove it.
known: set[str] = set()


class AttachedContainer:
    """One container, attached before it starts, so that nothing that it says is missed."""

    def __init__(self, engine: DockerConnection, cancelled: threading.Event) -> None:
        self._engine = engine
        self._api = engine.connect()
        self._stream: Stream | None = None
        self.id = ""
        self.name = f"spoold-{uuid.uuid4().hex}"
        known.add(self.name)
        try:
            with engine.errors():
                self._start(cancelled)
        except BaseException:  # whatever it was, an interrupt too: no container may be left that nobody knows of
            self.close()
            raise

    def _configuration(self) -> dict[str, Any]:
        """Return the arguments of the call that creates it."""
        raise NotImplementedError

    def _called(self, attached: Attached) -> Pipe | None:
        """Return another pipe to its program than the attached stream, where there is one."""

    def _start(self, cancelled: threading.Event) -> None:
        self.id = self._api.create_container(**self._configuration(), name=self.name)["Id"]
        attached = Attached(
            self._api.attach_socket(self.id, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        )
        self._stream = Stream(attached, cancelled)
        self._api.start(self.id)
        if pipe := self._called(attached):
            self._stream = Stream(pipe, cancelled)
        try:
            self.ready = self._stream.greeting(START_TIMEOUT)
        except ClosedError as error:
            raise TemporaryError(f"the sandbox did not start: {error}") from error

    @property
    def stream(self) -> Stream:
        """Return the stream to its program."""
        assert self._stream is not None  # noqa: S101 - the constructor attached, or raised
        return self._stream

    def stop(self) -> None:
        """End all that runs in it: to its program the end of the stream is the order to stop."""
        if self._stream is not None:
            self._stream.close()

    def close(self) -> None:
        """Stop and remove it. The next ``prepare`` tries again what failed here."""
        self.stop()
        known.discard(self.name)
        try:
            if self.id:
                remove(self._engine, self._api, self.id, EXIT_TIMEOUT)
        except SpooldError as error:
            log.warning("a container is left behind", container=self.id[:12], error=error)
        finally:
            self._api.close()


def remove(engine: DockerConnection, api: docker.APIClient, container: str, patience: float = 0.0) -> None:
    """Remove a container that may be gone already; what runs on after ``patience`` seconds is killed.

    To have the engine kill what is about to end costs a tenth of a container's whole life.
    """
    deadline = time.monotonic() + patience
    with engine.errors():
        engine.knock()
        while time.monotonic() < deadline:
            time.sleep(PAUSE)
            if _try_to_remove(api, container, force=False):
                return
        _try_to_remove(api, container, force=True)  # or its removal is going on already


def _try_to_remove(api: docker.APIClient, container: str, *, force: bool) -> bool:
    """Tell whether it is gone; False where the engine says that its state does not allow it."""
    try:
        api.remove_container(container, force=force, v=True)
    except docker.errors.NotFound:
        return True
    except docker.errors.APIError as error:
        if error.status_code != 409:
            raise
        return False
    return True
