"""A job in one slot takes no CPU from another: each container has its share, and with pinning its own CPU."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import docker
import pytest
from msgspec.structs import replace

from spoold.engines.docker.container import Container
from spoold.engines.docker.container import start as start_container
from spoold.engines.docker.sandbox import DockerSandbox
from spoold.host import machine
from spoold.model.job import Job, JobResult, Runtime
from spoold.sandbox import RunCancelledError
from spoold.sandbox.pinning import Pinning, Together
from spoold.sandbox.runner import Runner
from tests.engines import SLOWNESS
from tests.sandbox.conftest import RUN, Mode, make_job, settings_for
from tests.sandbox.test_cases import with_cases
from tests.sandbox.test_talk import Talks
from tests.waiting import until

pytestmark = pytest.mark.docker

CPUS = len(os.sched_getaffinity(0))
BUSY = 15 * CPUS  # processes in one slot; without shares, one process in the other slot would get 1/BUSY of their time
CROWD = f"#!/bin/bash\nfor ((i = 0; i < {BUSY}; i++)); do while :; do :; done & done; wait"
LIMITS = replace(RUN, processes=BUSY + 32, time=600 * SLOWNESS, cpu_time=6000 * SLOWNESS)


def used(api: docker.APIClient, container: Runner[Container]) -> float:
    """Return the CPU seconds that the kernel has counted for a container."""
    counted = api.stats(container.transport.id, stream=False, one_shot=True)["cpu_stats"]["cpu_usage"]
    return float(counted["total_usage"]) / 1e9


@contextlib.contextmanager
def going_on(run: Callable[..., JobResult], job: Job) -> Iterator[Future[JobResult]]:
    """Run a job in a slot during the block."""
    cancelled = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(run, job, lambda *_: None, cancelled)
        try:
            yield running
        finally:
            cancelled.set()
        with pytest.raises(RunCancelledError):
            running.result()


@contextlib.contextmanager
def crowd(sandbox: DockerSandbox, api: docker.APIClient, shell: str) -> Iterator[Runner[Container]]:
    """Keep ``BUSY`` processes busy in a slot."""
    assert sandbox.plan is not None
    container = start_container(sandbox._engine, sandbox.plan, threading.Event())
    with going_on(container.run, make_job(CROWD, shell=shell, limits=LIMITS)) as running:
        before = used(api, container)
        until(lambda: running.done() or used(api, container) > before + 2)  # by then all of them run
        yield container
    container.close()


def test_a_busy_neighbour_leaves_a_program_its_share(
    sandbox: DockerSandbox, api: docker.APIClient, plain_shell: str
) -> None:
    """The time that a program takes depends on the rest of this machine. The ratio of both slots' CPU time does not.

    Both go on until both were measured, because this test may stand still between any two looks.
    """
    assert sandbox.plan is not None
    alone = start_container(sandbox._engine, sandbox.plan, threading.Event())
    job = make_job("while :; do :; done", shell=plain_shell, limits=LIMITS)
    with crowd(sandbox, api, plain_shell) as neighbour, going_on(alone.run, job) as running:
        idle = used(api, alone)
        until(lambda: running.done() or used(api, alone) > idle + 0.5)
        own, theirs = used(api, alone), used(api, neighbour)
        until(lambda: running.done() or used(api, alone) > own + SLOWNESS)
        theirs = used(api, neighbour) - theirs
        own = used(api, alone) - own
    alone.close()
    assert theirs < 3 * CPUS * own, "the share does not hold"


SHOW = "exec python3 -c 'import os; print(*sorted(os.sched_getaffinity(0)))'"


def test_a_job_that_is_not_pinned_may_use_all_cpus(sandbox: DockerSandbox, python_shell: str) -> None:
    job = make_job(SHOW, shell=python_shell)
    shown = sandbox.run(job, lambda *_: None, threading.Event()).run.stdout
    assert [int(number) for number in shown.split()] == machine.cpus()


@pytest.fixture
def pinned(docker_host: str, runtime: Runtime, tmp_path: Path, mode: Mode) -> Iterator[DockerSandbox]:
    """Yield a sandbox whose jobs have a CPU each."""
    settings = settings_for(docker_host, str(tmp_path), mode=mode)
    made = DockerSandbox(replace(settings, sandbox=replace(settings.sandbox, pin_cpus=True)), runtime)
    made.prepare()
    yield made
    made.close()


def test_pinned_jobs_have_a_cpu_each(
    pinned: DockerSandbox, api: docker.APIClient, plain_shell: str, python_shell: str
) -> None:
    own = {"label": [f"{name}={value}" for name, value in (pinned.plan.labels if pinned.plan else {}).items()]}

    def bound() -> list[str]:
        found = []
        for each in api.containers(filters=own):
            with contextlib.suppress(docker.errors.NotFound):  # it was removed meanwhile
                found.append(api.inspect_container(each["Id"])["HostConfig"]["CpusetCpus"])
        return [cpu for cpu in found if cpu]

    with going_on(pinned.run, make_job("sleep 6000", shell=plain_shell, limits=LIMITS)):
        until(bound)
        (taken,) = bound()
        others = [str(cpu) for cpu in machine.cpus() if str(cpu) != taken]
        for _ in range(3):
            shown = pinned.run(make_job(SHOW, shell=python_shell), lambda *_: None, threading.Event()).run.stdout
            assert shown.strip() == (others or [taken])[0]


def test_a_program_and_its_interactor_have_one_cpu(pinned: DockerSandbox, plain_shell: str) -> None:
    """Else a submission of two programs would take a CPU from another's job."""
    own = 'while read -r key value; do [ "$key" != Cpus_allowed_list: ] || own=$value; done </proc/self/status; '
    job = with_cases(make_job(own + 'echo "$own"', shell=plain_shell, compile_sh="true", limits=LIMITS), "")
    beside = make_job(
        own + 'read -r other; [ "$other" = "$own" ] && exit 42; exit 43', shell=plain_shell, limits=LIMITS
    )
    judge = Talks([""])
    pinned.run(replace(job, checker=beside, talks=True), lambda *_: None, threading.Event(), judge)
    ((found, cpu),) = [(talked.result and talked.result.run.exit_code, talked.run.stdout) for talked in judge.talks]
    assert found == 42
    assert int(cpu) in machine.cpus()


def test_which_cpu_a_job_gets() -> None:
    pinning = Pinning([3, 5])
    with pinning.cpu(5) as first, pinning.cpu(5) as second, pinning.cpu() as third:
        assert (first, second, third) == (5, 3, 3)
        with pinning.cpu(3) as fourth:
            assert fourth == 5
    with pytest.raises(ZeroDivisionError), pinning.cpu(5):
        raise ZeroDivisionError
    with pinning.cpu(5) as again:
        assert again == 5


def test_all_parts_of_a_job_have_one_cpu() -> None:
    pinning = Pinning([3, 5])
    job, other = Together(pinning), Together(pinning)
    with job.cpu(5) as first, job.cpu(3) as second, other.cpu(5) as third:
        assert (first, second, third) == (5, 5, 3)
    with other.cpu(5) as again, job.cpu(5) as last:
        assert (again, last) == (5, 3)
