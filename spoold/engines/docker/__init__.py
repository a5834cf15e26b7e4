"""The engine that is Docker: a container for each job, or one for many jobs in turn."""

from __future__ import annotations

import os
from collections.abc import Iterator

from spoold.config import Settings
from spoold.engines.docker import sdk
from spoold.model.findings import Finding
from spoold.model.job import Runtime
from spoold.sandbox import Sandbox


def make(settings: Settings, runtime: Runtime) -> Sandbox:
    """Return a sandbox of the engine that the settings name."""
    where = settings.docker.host or os.environ.get("DOCKER_HOST", "")  # as the SDK reads it
    sdk.load(encrypts=bool(where) and not where.startswith("unix://"))
    from spoold.engines.docker.sandbox import DockerSandbox  # noqa: PLC0415 - the SDK takes much memory

    return DockerSandbox(settings, runtime)


def examine(settings: Settings, runtime: Runtime | None) -> Iterator[Finding]:
    """Yield what is found about the Docker that the settings name, and about jobs on trial in it."""
    from spoold.engines.docker import doctor  # noqa: PLC0415 - as above

    return doctor.examine(settings, runtime)
