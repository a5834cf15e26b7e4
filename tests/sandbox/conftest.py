"""One prepared sandbox for all tests of this directory, and a short way to run a job in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

import docker
import pytest
from msgspec.structs import replace

from spoold.config import (
    DockerSettings,
    ExecutorSettings,
    NixSettings,
    OciSettings,
    SandboxSettings,
    Settings,
    SpoolSettings,
)
from spoold.engines import find
from spoold.model.job import Job, JobFile, JobResult, Runtime
from spoold.model.limits import COMPILE_DEFAULT, MIB, RUN_DEFAULT, PhaseLimits
from spoold.model.outputs import Wanted
from spoold.model.response import Outcome, Phase
from spoold.sandbox.pooled import PooledSandbox
from tests import engines
from tests.sandbox import inside

# Small, so that programs run into a limit soon. Time is the exception, because a machine that stalls for seconds is not
# the job's fault. Tests that want a short time set it.
RUN = PhaseLimits(
    time=120 * engines.SLOWNESS,
    cpu_time=120 * engines.SLOWNESS,
    memory=128 * MIB,
    stdout=64 * 1024,
    stderr=64 * 1024,
    processes=32,
    file_size=16 * MIB,
    open_files=64,
)
COMPILE = replace(
    COMPILE_DEFAULT,
    time=COMPILE_DEFAULT.time * engines.SLOWNESS,
    cpu_time=COMPILE_DEFAULT.cpu_time * engines.SLOWNESS,
)


# Forks until the limit. Bash would print an error and try again for seconds, so its first word ends the job.
FORKS = """#!/bin/bash
exec 3>&2 2> >(read -r line; echo "$line" >&3; kill -9 $$)
for i in {1..60}; do sleep 600 & done; wait
"""
Kind = TypeVar("Kind")


def notes_of(result: JobResult) -> list[str]:
    """Return the notes on a job, without the one that an earlier job of its container may cause.

    Kernels with control groups of version 2 before 6.12 never reset a peak of memory.
    """
    return [note for note in result.notes if not note.startswith("run.memory: peaks shorter than")]


def longer(act: Callable[[float], Kind], enough: Callable[[Kind], object]) -> Kind:
    """Do something with little time. If it did not get far enough, the machine stalled: try again with more time."""
    for times in (1.0, 8.0):
        if enough(found := act(times)):
            return found
    return act(64.0)


class Run(Protocol):
    """Run a job of ``run.sh`` alone, or of more files."""

    def __call__(
        self,
        run_sh: str,
        *,
        shell: str = ...,
        compile_sh: str | None = ...,
        files: dict[str, bytes] = ...,
        stdin: bytes = ...,
        args: tuple[str, ...] = ...,
        env: dict[str, str] | None = ...,
        limits: PhaseLimits = ...,
        compile_limits: PhaseLimits = ...,
        outputs: Wanted | None = ...,
        cancelled: threading.Event | None = ...,
        phases: list[tuple[str, Phase]] | None = ...,
    ) -> JobResult: ...


class Said(Protocol):
    """Run a Python program that must end well and print nothing on stderr. Return the lines that it printed."""

    def __call__(self, program: str) -> list[str]: ...


Mode = Literal["single-use", "recycled"]
AnySandbox = PooledSandbox[Any, Any]


def settings_for(
    where: str, spool: str, executor: str = "tests", waiting: int = 0, mode: Mode = "single-use"
) -> Settings:
    """Return settings whose containers have ``spool`` and ``executor`` in their labels. ``waiting`` containers wait.

    ``where`` is the URL of a Docker Engine, or OCI.
    """
    return Settings(
        docker=DockerSettings(host="" if where == engines.OCI else where),
        oci=OciSettings(state=f"{spool}.oci"),
        sandbox=SandboxSettings(engine="oci" if where == engines.OCI else "docker", waiting=waiting, mode=mode),
        nix=NixSettings(state=engines.nix_state),
        spool=SpoolSettings(path=spool),
        executor=ExecutorSettings(name=executor),
    )


@pytest.fixture(scope="session")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the program with the supervisor's parts."""
    return inside.units(tmp_path_factory.mktemp("units"))


@pytest.fixture
def api(docker_host: str) -> Iterator[docker.APIClient]:
    """Yield a client for one test."""
    client = docker.APIClient(base_url=docker_host)
    yield client
    client.close()


@pytest.fixture(scope="session", params=["single-use", "recycled"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """Return each way of using containers. A job must not notice which one it is."""
    chosen: Mode = request.param
    return chosen


def made_sandbox(settings: Settings, runtime: Runtime) -> AnySandbox:
    """Return a sandbox of the engine that the settings name. It is not prepared."""
    return cast(AnySandbox, find(settings.sandbox.engine).make(settings, runtime))


@pytest.fixture(scope="session")
def sandbox(
    engine_at: str, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory, mode: Mode
) -> Iterator[AnySandbox]:
    """Yield a prepared sandbox of each engine, and close it at the end."""
    settings = settings_for(engine_at, str(tmp_path_factory.mktemp("spool")), waiting=2, mode=mode)
    made = made_sandbox(settings, runtime)
    made.prepare()
    yield made
    made.close()


def make_job(
    run_sh: str,
    *,
    shell: str,
    compile_sh: str | None = None,
    files: dict[str, bytes] | None = None,
    stdin: bytes = b"",
    args: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
    limits: PhaseLimits = RUN,
    compile_limits: PhaseLimits = COMPILE,
    outputs: Wanted | None = None,
) -> Job:
    """Return a job."""
    scripts = {"run.sh": run_sh.encode()} | ({} if compile_sh is None else {"compile.sh": compile_sh.encode()})
    return Job(
        submission_id="test",
        attempt=1,
        files=[JobFile(name, content, 0o644) for name, content in (scripts | (files or {})).items()],
        stdin=stdin,
        args=list(args),
        env=env or {},
        compile=None if compile_sh is None else compile_limits,
        run=limits,
        shell=shell,
        nixpkgs="/nix/store/the-pin",
        outputs=outputs,
    )


@pytest.fixture
def run(sandbox: AnySandbox, plain_shell: str) -> Run:
    """Return a function that runs a job, in the plain shell unless another is named."""

    def _run(
        run_sh: str,
        *,
        shell: str = plain_shell,
        cancelled: threading.Event | None = None,
        phases: list[tuple[str, Phase]] | None = None,
        **parts: object,
    ) -> JobResult:
        seen: list[tuple[str, Phase]] = [] if phases is None else phases
        job = make_job(run_sh, shell=shell, **parts)  # type: ignore[arg-type]
        return sandbox.run(job, lambda name, phase: seen.append((name, phase)), cancelled or threading.Event())

    return _run


@pytest.fixture
def said(run: Run, python_shell: str) -> Said:
    """Return a function that runs a Python program in a job."""

    def _said(program: str) -> list[str]:
        phase = run("exec python3 main.py", files={"main.py": program.encode()}, shell=python_shell).run
        assert (phase.outcome, phase.stderr) == (Outcome.OK, "")
        return phase.stdout.splitlines()

    return _said


__all__ = ["FORKS", "RUN", "RUN_DEFAULT", "Run", "Said", "longer", "make_job", "settings_for"]
