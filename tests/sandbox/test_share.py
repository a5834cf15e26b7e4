"""A job in one slot takes no CPU from another: each container has its share, and with pinning its own CPU."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace as replace_in
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest
from msgspec.structs import replace

from spoold.config import Settings
from spoold.engines.docker import shares, trial
from spoold.engines.docker.container import Container
from spoold.engines.docker.container import start as start_container
from spoold.engines.docker.sandbox import DockerSandbox
from spoold.engines.docker.walls import DockerPlan
from spoold.host import cgroups, machine
from spoold.model.job import Job, JobResult, Runtime
from spoold.sandbox import RunCancelledError
from spoold.sandbox.pinning import Pinning, Together
from spoold.sandbox.runner import Runner
from tests.engines import SLOWNESS
from tests.sandbox.conftest import RUN, AnySandbox, Mode, make_job, settings_for
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


def weight(pid: int) -> float:
    """Return the share of the CPU that the kernel gives to the control group of a process; 1 is that of a job."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    if cgroups.delegable():
        (path,) = (path for _, controllers, path in lines if not controllers)
        return int(Path(f"{cgroups.MOUNT}{path}/cpu.weight").read_text()) / 100
    (path,) = (path for _, controllers, path in lines if "cpu" in controllers.split(","))
    return int(Path(f"{cgroups.tree('cpu')}{path}/cpu.shares").read_text()) / 1024


@pytest.mark.engines
def test_a_program_and_its_interactor_have_the_share_of_one_job(
    sandbox: AnySandbox, plain_shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's own files say which share a container has. A container that has talked is like any other again."""
    seen: dict[int, Runner[Any]] = {}
    run = Runner.run

    def noted(container: Runner[Any], *args: Any, **more: Any) -> JobResult:
        seen[container.transport.pid] = container
        return run(container, *args, **more)

    def weights() -> list[float]:
        return [weight(pid) for pid in seen]

    monkeypatch.setattr(Runner, "run", noted)
    job = with_cases(make_job("read -r x; sleep 6000", shell=plain_shell, limits=LIMITS), "")
    beside = make_job("sleep 6000", shell=plain_shell, limits=LIMITS)
    talk = replace(job, checker=beside, talks=True)
    with going_on(functools.partial(sandbox.run, judge=Talks([""])), talk) as running:
        until(lambda: running.done() or weights() == [0.5, 0.5], lambda: str(weights()))
    seen.clear()
    container = sandbox.on_trial()
    container.transport.resize(replace_in(container.transport.size, halved=True))
    assert weight(container.transport.pid) == 0.5
    with going_on(container.run, make_job("sleep 6000", shell=plain_shell, limits=LIMITS)) as running:
        until(lambda: running.done() or weights() == [1], lambda: str(weights()))
    container.close()


def newer(number: int) -> int:
    """Return the weight that newer runtimes make out of the engine's number on version 2."""
    log = math.log2(number)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def older(number: int) -> int:
    """Return the weight that older runtimes make out of it."""
    return 1 + (number - 2) * 9999 // 262142


@pytest.mark.parametrize(
    ("weighs", "wanted", "weights"),
    [
        (newer, shares.VERSION_2, [100, 50]),
        (older, shares.OLDER_VERSION_2, [100, 50]),
        (lambda _: -1, shares.VERSION_2, [-1, -1]),  # the container does not see its weight
        (lambda _: 7, None, []),
    ],
    ids=["newer", "older", "unseen", "unknown"],
)
def test_which_numbers_halve_a_share_on_version_2_is_found_by_trying(
    weighs: Callable[[int], int], wanted: shares.Shares | None, weights: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runtimes of both ways are never on one machine. The test above asks the kernel for the weights on this one."""
    settings, none = Settings(), cast("Any", None)
    plan = DockerPlan(
        settings=settings, runtime=none, image=none, store="", labels={}, network_disabled=True, unified=True,
        shares=shares.VERSION_2,
    )  # fmt: skip

    def started(_: object, plan: DockerPlan, *, halved: bool) -> Any:
        assert halved
        assert plan.shares
        ready = SimpleNamespace(weight=weighs(plan.shares.half))
        return SimpleNamespace(transport=SimpleNamespace(ready=ready), close=lambda: None)

    monkeypatch.setattr(trial, "_start", started)
    found = trial._shares(none, plan, weighs(shares.VERSION_2.half))
    assert found == wanted
    assert [weighs(number) for number in found or ()] == weights
    first = replace_in(plan, unified=False, shares=shares.VERSION_1)
    assert trial._shares(none, first, -1) == shares.VERSION_1


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
