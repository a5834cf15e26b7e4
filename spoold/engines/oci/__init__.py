"""The engine that is an OCI runtime alone, runc or crun. Without a daemon, jobs are below the executor's own limits."""

from __future__ import annotations

from collections.abc import Iterator

from spoold.config import Settings
from spoold.model.findings import Finding
from spoold.model.job import Runtime
from spoold.sandbox import Sandbox


def make(settings: Settings, runtime: Runtime) -> Sandbox:
    """Return a sandbox of the runtime that the settings name."""
    from spoold.engines.oci.sandbox import OciSandbox  # noqa: PLC0415 - the builder's process needs none of it

    return OciSandbox(settings, runtime)


def examine(settings: Settings, runtime: Runtime | None) -> Iterator[Finding]:
    """Yield what is found about the runtimes and control groups here, and about jobs on trial."""
    from spoold.engines.oci import doctor  # noqa: PLC0415 - as above

    return doctor.examine(settings, runtime)
