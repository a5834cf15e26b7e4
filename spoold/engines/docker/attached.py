"""The life of a container: it is made, attached and started, its program says that it is ready, and it is removed."""

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
PAUSE = 0.02  # seconds; about as long as the engine takes to notice an end
# The names of this process's containers, from before the engine makes them until somebody removes them. Any other
# container of this process in the engine is an orphan: the engine did not answer when it was to make or to remove that
# container.
known: set[str] = set()


class AttachedContainer:
    """One container. It is attached before it starts, so that nothing that it says is missed."""

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
        except BaseException:  # any error, also an interrupt: no container may be left that nobody knows of
            self.close()
            raise

    def _configuration(self) -> dict[str, Any]:
        """Return the arguments of the call that creates the container."""
        raise NotImplementedError

    def _called(self, attached: Attached) -> Pipe | None:
        """Return a pipe to its program other than the attached stream, None where there is none."""

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
        """End all that runs in it. Its program takes the end of the stream as the order to stop."""
        if self._stream is not None:
            self._stream.close()

    def close(self) -> None:
        """Stop and remove it. Where this fails, the next ``prepare`` tries again."""
        self.stop()
        known.discard(self.name)
        try:
            if self.id:
                remove(self._engine, self._api, self.id, EXIT_TIMEOUT)
        except SpooldError as error:
            log.warning(
                "a container could not be removed; the next executor removes it", container=self.id[:12], error=error
            )
        finally:
            self._api.close()


def remove(engine: DockerConnection, api: docker.APIClient, container: str, patience: float = 0.0) -> None:
    """Remove a container, which may be gone already. After ``patience`` seconds, one that still runs is killed.

    A kill by the engine costs a tenth of a container's whole life, so a container that is about to end gets that time.
    """
    deadline = time.monotonic() + patience
    with engine.errors():
        engine.knock()
        while time.monotonic() < deadline:
            time.sleep(PAUSE)
            if _try_to_remove(api, container, force=False):
                return
        _try_to_remove(api, container, force=True)  # or its removal has begun already


def _try_to_remove(api: docker.APIClient, container: str, *, force: bool) -> bool:
    """Tell whether it is gone; False where the engine says that its state does not allow a removal."""
    try:
        api.remove_container(container, force=force, v=True)
    except docker.errors.NotFound:
        return True
    except docker.errors.APIError as error:
        if error.status_code != 409:
            raise
        return False
    return True
