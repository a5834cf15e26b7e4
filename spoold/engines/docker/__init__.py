"""The engine that is Docker: a container per job, or one after the other."""

from __future__ import annotations

from spoold.config import Settings
from spoold.model.job import Runtime
from spoold.sandbox import Sandbox


def make(settings: Settings, runtime: Runtime) -> Sandbox:
    """Return a sandbox of the engine that the settings name."""
    from spoold.engines.docker.sandbox import DockerSandbox  # noqa: PLC0415 - the SDK takes much memory

    return DockerSandbox(settings, runtime)
