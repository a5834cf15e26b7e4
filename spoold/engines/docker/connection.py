"""The connection to Docker, and what its errors mean to us."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import docker
import requests
from docker.constants import DEFAULT_UNIX_SOCKET
from docker.utils import kwargs_from_env

from spoold.model.errors import OperatorError, TemporaryError
from spoold.sandbox.stream import RefusedError

ANSWER_TIMEOUT = 60  # seconds for one answer of the engine


class ImageGoneError(TemporaryError):
    """Somebody has removed our image."""


class _Client(docker.APIClient):
    """The SDK's client, with a time-out for each call. The SDK has none for attaching and for importing an image."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        options["timeout"] = options.get("timeout") or ANSWER_TIMEOUT
        return super().send(request, **options)


class DockerConnection:
    """Where the engine is, and which version of its API is used.

    Each container gets a client of its own. Clients are cheap, since the version is asked for once, and threads share
    nothing.
    """

    def __init__(self, host: str) -> None:
        self._options: dict[str, Any] = {**kwargs_from_env()}
        if host:
            self._options["base_url"] = host
        self.where: str = self._options.setdefault("base_url", DEFAULT_UNIX_SOCKET.replace("http+", ""))
        self._version = "auto"

    @contextlib.contextmanager
    def client(self) -> Iterator[docker.APIClient]:
        """Yield a client, closed at the end."""
        api = self.connect()
        try:
            with self.errors():
                yield api
        finally:
            api.close()

    def connect(self) -> docker.APIClient:
        """Return a client, which the caller closes."""
        with self.errors():
            self.knock()
            api = _Client(**self._options, version=self._version, timeout=ANSWER_TIMEOUT)
            # Proxies are for the network. To look for them, requests would walk os.environ at each call, in our
            # threads.
            api.trust_env = False
            self._version = api.api_version
            return api

    def knock(self) -> None:
        """Fail early where nobody listens, since the SDK would wrap the reason three times and leak a descriptor."""
        scheme, _, path = self.where.partition("://")
        if scheme == "unix":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(ANSWER_TIMEOUT)
                probe.connect("/" + path.lstrip("/"))

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the SDK's errors into ours."""
        try:
            yield
        except docker.errors.ImageNotFound as error:
            raise ImageGoneError(f"Docker at {self.where}: {error.explanation}") from error
        except docker.errors.APIError as error:
            raise RefusedError(f"Docker at {self.where}: {error.explanation or error}") from error
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            if "PermissionError" in repr(error) or "Permission denied" in str(error):
                raise OperatorError(
                    f"no permission to use Docker at {self.where}: run the executor in the group of the socket"
                ) from error
            raise TemporaryError(
                f"Docker does not answer at {self.where} ({error}). Start the engine, or mend docker.host"
            ) from error
