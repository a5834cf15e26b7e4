"""The pool of waiting containers: which container a job gets, what happens to dead ones, and that none is left."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from msgspec.structs import replace

from spoold.config import ExecutorSettings
from spoold.engines.docker import attached
from spoold.engines.docker.sandbox import DockerSandbox
from spoold.host import metrics
from spoold.host.machine import Load
from spoold.model.errors import TemporaryError
from spoold.model.job import JobResult, Runtime
from spoold.model.limits import MIB, RUN_DEFAULT
from spoold.model.response import Outcome
from spoold.sandbox import RunCancelledError, schedule
from spoold.sandbox import pooled as all_pooled
from spoold.sandbox.pool import Pool
from tests.engines import Daemon
from tests.sandbox.conftest import FORKS, Mode, make_job, settings_for
from tests.sandbox.test_cancel import LONG, marked
from tests.sandbox.test_engine import left, nothing_is_left
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.docker
WAITING = 2
WHO = "cat /proc/self/cgroup /proc/sys/kernel/random/uuid; readlink /proc/self/ns/mnt"


def pooled(host: str, runtime: Runtime, spool: Path) -> DockerSandbox:
    """Return a sandbox with a full pool."""
    settings = replace(
        settings_for(host, str(spool), waiting=WAITING), executor=ExecutorSettings(name="tests", slots=2)
    )
    made = DockerSandbox(settings, runtime)
    made.prepare()
    full(made)
    return made


def waiting(sandbox: DockerSandbox) -> list[str]:
    """Return the ids of the containers that wait."""
    assert sandbox._pool is not None
    return [container.transport.id for container in list(sandbox._pool._waiting)]


def full(sandbox: DockerSandbox) -> None:
    """Wait until the pool is full."""
    until(lambda: len(waiting(sandbox)) == WAITING)


@pytest.fixture
def pool(docker_host: str, runtime: Runtime, tmp_path: Path) -> Iterator[DockerSandbox]:
    """Yield a sandbox with a full pool."""
    made = pooled(docker_host, runtime, tmp_path)
    yield made
    made.close()


def test_containers_are_measured(docker_host: str, runtime: Runtime, tmp_path: Path) -> None:
    exposition = metrics.Exposition(["executor"], {})
    made = pooled(docker_host, runtime, tmp_path)
    try:
        until(lambda: made._pool is not None and not made._pool._used)
        made.measure()
        text = exposition.text().decode()
        assert f'spoold_sandboxes{{state="waiting"}} {WAITING}.0' in text
        assert f'spoold_sandbox_events_total{{event="made"}} {WAITING}.0' in text
    finally:
        made.close()
        metrics.turn_off()


Go = Callable[..., JobResult]


@pytest.fixture
def go(pool: DockerSandbox, plain_shell: str) -> Go:
    """Return a function that runs a script with the default limits."""

    def _go(script: str, **parts: object) -> JobResult:
        job = make_job(script, shell=plain_shell, **({"limits": RUN_DEFAULT} | parts))  # type: ignore[arg-type]
        return pool.run(job, lambda *_: None, threading.Event())

    return _go


def test_a_job_gets_a_container_that_waited(pool: DockerSandbox, go: Go) -> None:
    first, _ = waiting(pool)
    assert first in go(WHO).run.stdout
    assert (pool.counts.met, pool.counts.unmet) == (1, 0)
    assert first not in waiting(pool)


def test_the_pool_is_filled_again_and_the_used_one_removed(
    pool: DockerSandbox, go: Go, api: docker.APIClient, tmp_path: Path
) -> None:
    go("true")
    full(pool)
    until(lambda: sorted(left(api, tmp_path)) == sorted(waiting(pool)))
    until(lambda: pool.counts.removed == 1)  # the engine removes it a moment earlier
    assert (pool.counts.made, pool.counts.removed) == (3, 1)


def test_no_two_jobs_share_a_container_and_none_is_left_after_fifty(
    docker_host: str, runtime: Runtime, api: docker.APIClient, tmp_path: Path, plain_shell: str
) -> None:
    pool = pooled(docker_host, runtime, tmp_path)

    def one(_: int) -> str:
        job = make_job("ls -A /tmp /dev/shm; touch /tmp/x /dev/shm/y; " + WHO, shell=plain_shell)
        return pool.run(job, lambda *_: None, threading.Event()).run.stdout

    with concurrent.futures.ThreadPoolExecutor(4) as threads:  # twice as many as there are waiting containers
        outputs = list(threads.map(one, range(50)))
    names = {line for output in outputs for line in output.splitlines() if ":memory:" in line or line.startswith("0::")}
    assert {output.splitlines()[:3] == ["/dev/shm:", "", "/tmp:"] for output in outputs} == {True}
    assert len({output.partition(":memory:")[2].splitlines()[0] for output in outputs}) == 50, names
    full(pool)
    until(lambda: sorted(left(api, tmp_path)) == sorted(waiting(pool)))
    assert pool._pool is not None
    mine = pool._pool._threads
    pool.close()
    assert api.containers(all=True, filters={"label": f"spoold.spool={tmp_path}"}) == []  # the porter is removed too
    assert not any(thread.is_alive() for thread in mine)


def test_containers_of_this_process_that_wait_are_no_orphans(
    pool: DockerSandbox, docker_host: str, runtime: Runtime, tmp_path: Path, go: Go
) -> None:
    before = waiting(pool)
    pool.prepare()
    another = DockerSandbox(settings_for(docker_host, str(tmp_path)), runtime)
    another.prepare()
    another.close()
    assert waiting(pool) == before
    assert go("echo hi").run.stdout == "hi\n"


@pytest.mark.parametrize("how", ["kill", "remove", "stop the supervisor"])
def test_one_that_died_is_replaced_and_the_job_knows_nothing(
    pool: DockerSandbox, go: Go, api: docker.APIClient, how: str
) -> None:
    assert pool._pool is not None
    doomed = list(pool._pool._waiting)
    for found in waiting(pool):
        if how == "kill":
            api.kill(found)
        elif how == "remove":
            api.remove_container(found, force=True)
        else:
            api.kill(found, signal="SIGTERM")  # process 1 has no handler for it, so nothing happens
    if how != "stop the supervisor":
        until(lambda: not any(container.alive() for container in doomed))  # the engine reports it a moment later
    result = go("echo hi")
    assert result.run.stdout == "hi\n"
    full(pool)
    assert pool.counts.died == (0 if how == "stop the supervisor" else 2)


def test_limits_other_than_the_default(pool: DockerSandbox, go: Go, api: docker.APIClient) -> None:
    hog = "#!/bin/bash\nx=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}"
    small = go(hog, limits=replace(RUN_DEFAULT, memory=64 * MIB))
    assert small.run.outcome is Outcome.MEMORY_LIMIT
    full(pool)
    large = go(hog, limits=replace(RUN_DEFAULT, memory=1024 * MIB))
    assert large.run.stdout == "200000000\n"
    full(pool)
    few = go(FORKS, limits=replace(RUN_DEFAULT, processes=8))
    assert "Resource temporarily unavailable" in few.run.stderr
    full(pool)
    both = go("cat made", compile_sh="echo x >made")
    assert both.run.stdout == "x\n"
    assert pool.counts.unmet == 0


def test_a_burst_larger_than_the_pool(pool: DockerSandbox, go: Go) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        outputs = list(threads.map(lambda n: go("echo $1", args=(str(n),)).run.stdout, range(8)))
    assert outputs == [f"{n}\n" for n in range(8)]
    assert pool.counts.met >= WAITING
    assert pool.counts.met + pool.counts.unmet == 8


def test_cancelled_while_waiting_for_a_container(docker_host: str, runtime: Runtime, tmp_path: Path) -> None:
    sandbox = DockerSandbox(settings_for(docker_host, str(tmp_path)), runtime)  # none waits
    sandbox.prepare()
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(RunCancelledError):
        sandbox.run(make_job("true", shell=""), lambda *_: None, cancelled)
    sandbox.close()


def test_refilling_and_removing_do_not_starve_while_jobs_run(pool: DockerSandbox, go: Go, plain_shell: str) -> None:
    cancelled = threading.Event()
    job = make_job("sleep 600", shell=plain_shell, limits=replace(RUN_DEFAULT, time=600))
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        long = threads.submit(pool.run, job, lambda *_: None, cancelled)
        try:
            go("true")
            until(lambda: len(waiting(pool)) == WAITING and pool.counts.removed == 1)
            assert not long.done()
        finally:
            cancelled.set()


@pytest.fixture
def burst(
    docker_host: str, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[DockerSandbox, list[float]]]:
    """Yield a sandbox with 2 slots and a reserve of 3, and a list that holds the share of idle CPU time."""
    idle = [1.0]
    monkeypatch.setattr(all_pooled, "MOST_RESERVE", 3)
    monkeypatch.setattr(Load, "idle", lambda _: idle[0])
    settings = settings_for(docker_host, str(tmp_path), waiting=-1)
    made = DockerSandbox(replace(settings, executor=ExecutorSettings(name="tests", slots=2)), runtime)
    made.prepare()
    yield made, idle
    made.close()


def test_a_reserve_is_filled_and_used_ones_are_removed_while_the_machine_is_idle(
    burst: tuple[DockerSandbox, list[float]], plain_shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, idle = burst
    monkeypatch.setattr(schedule, "LINGER", 1000.0)
    until(lambda: len(waiting(pool)) == 5)
    idle[0] = 0.0
    for _ in range(3):
        pool.run(make_job("true", shell=plain_shell, limits=RUN_DEFAULT), lambda *_: None, threading.Event())
    assert (pool.counts.met, pool.counts.unmet) == (3, 0)
    until(lambda: len(waiting(pool)) == 2)
    time.sleep(1)
    assert (len(waiting(pool)), pool.counts.made, pool.counts.removed) == (2, 5, 0)
    idle[0] = 1.0
    until(lambda: len(waiting(pool)) == 5 and pool.counts.removed == 3)


def test_what_holds_memory_is_removed_on_a_busy_machine_too(
    burst: tuple[DockerSandbox, list[float]], plain_shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, idle = burst
    until(lambda: len(waiting(pool)) == 5)
    idle[0] = 0.0
    monkeypatch.setattr(schedule, "LINGER", 1000.0)
    for script in ("true", "head -c 20M /dev/zero >/tmp/x"):
        pool.run(make_job(script, shell=plain_shell, limits=RUN_DEFAULT), lambda *_: None, threading.Event())
    until(lambda: pool.counts.removed == 1)
    time.sleep(1)
    assert pool.counts.removed == 1
    monkeypatch.setattr(schedule, "LINGER", 0.1)
    until(lambda: pool.counts.removed == 2)


def test_what_ends_by_itself_is_not_killed(
    pool: DockerSandbox, go: Go, api: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill by the engine costs a tenth of a container's whole life."""
    monkeypatch.setattr(attached, "EXIT_TIMEOUT", PATIENCE)
    since = int(time.time())
    used, _ = waiting(pool)
    go("true")
    until(lambda: pool.counts.removed == 1)
    events = api.events(since=since, until=int(time.time()) + 1, filters={"container": used}, decode=True)
    actions = {event["Action"] for event in events}
    assert ("destroy" in actions, "kill" in actions) == (True, False)


def test_what_does_not_end_by_itself_is_killed(pool: DockerSandbox, api: docker.APIClient) -> None:
    first, _ = waiting(pool)
    api.pause(first)
    pool._pool.renew()  # type: ignore[union-attr]
    until(lambda: pool.counts.removed == 2)
    assert first not in {found["Id"] for found in api.containers(all=True)}


def test_resting_keeps_none_ready_and_still_runs(pool: DockerSandbox, go: Go) -> None:
    pool.rest()
    until(lambda: waiting(pool) == [])
    assert go("echo hi").run.stdout == "hi\n"
    time.sleep(0.5)
    assert waiting(pool) == []


def sizes(sandbox: DockerSandbox, api: docker.APIClient) -> list[int]:
    """Return the bytes of memory that the waiting containers may take."""
    return [api.inspect_container(id_)["HostConfig"]["Memory"] for id_ in waiting(sandbox)]


@pytest.mark.parametrize("mode", ["single-use", "recycled"])
def test_containers_that_were_made_for_other_limits_are_replaced(
    docker_host: str, runtime: Runtime, tmp_path: Path, *, plain_shell: str, api: docker.APIClient, mode: Mode
) -> None:
    """This holds for waiting containers, and for a container that a job comes back from."""
    settings = settings_for(docker_host, str(tmp_path), waiting=WAITING, mode=mode)
    sandbox = DockerSandbox(replace(settings, executor=ExecutorSettings(name="tests", slots=2)), runtime)
    sandbox.prepare()
    try:
        full(sandbox)
        first = set(waiting(sandbox))
        script, mark = marked("echo hi; sleep MARK & wait")
        job = make_job(script, shell=plain_shell, limits=LONG)
        with concurrent.futures.ThreadPoolExecutor() as threads:
            running = threads.submit(sandbox.run, job, lambda *_: None, threading.Event())
            until(lambda: len(first.intersection(waiting(sandbox))) == 1)
            run = sandbox._settings.limits.run
            grown = replace(run, default=replace(RUN_DEFAULT, memory=2048 * MIB))
            sandbox.go_by(replace(sandbox._settings.limits, run=grown))
            end(mark)
            assert running.result().run.stdout == "hi\n"
        until(lambda: len(waiting(sandbox)) == WAITING and not first.intersection(waiting(sandbox)))
        assert set(sizes(sandbox, api)) == {(2048 + 56) * MIB}
        sandbox.prepare()
        second = set(waiting(sandbox))
        assert sandbox.run(make_job("echo hi", shell=plain_shell), lambda *_: None, threading.Event()).run.stdout
        assert second.intersection(waiting(sandbox)), "with the same limits they are kept"
    finally:
        sandbox.close()


def end(text: str) -> None:
    """Wait for a process of this host with a text in its command line, and kill it."""

    def killed() -> bool:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if text.encode() in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
                    return True
        return False

    until(killed)


class Plain:
    """A container that does nothing."""

    light = True
    due = False
    closed = False

    def alive(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


def test_one_that_was_in_the_making_when_all_were_replaced_is_replaced() -> None:
    made: list[Any] = []
    begun, go_on = threading.Event(), threading.Event()

    def make(_: threading.Event) -> Any:
        made.append(Plain())
        begun.set()
        go_on.wait()
        return made[-1]

    pool = Pool(make, wanted=1, threads=1, backlog=4)
    try:
        until(begun.is_set)
        pool.renew()
        go_on.set()
        until(lambda: len(made) == 2 and made[0].closed and list(pool._waiting) == made[1:])
    finally:
        go_on.set()
        pool.close()


def test_an_engine_that_goes_away_and_comes_back(
    daemon: Daemon, runtime: Runtime, tmp_path: Path, plain_shell: str
) -> None:
    pool = pooled(daemon.host, runtime, tmp_path)
    job = make_job("echo hi", shell=plain_shell)
    daemon.stop()
    with pytest.raises(TemporaryError):
        pool.run(job, lambda *_: None, threading.Event())
    with pytest.raises(TemporaryError):
        pool.prepare()
    daemon.start()
    pool.prepare()
    assert pool.run(job, lambda *_: None, threading.Event()).run.stdout == "hi\n"
    full(pool)
    pool.close()
    client = docker.APIClient(base_url=daemon.host)
    nothing_is_left(client, tmp_path)
    client.close()


def test_a_container_that_was_made_though_the_engine_did_not_say_so_goes(
    docker_host: str, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pooled(docker_host, runtime, tmp_path)
    create = docker.APIClient.create_container
    made: list[str] = []

    def silently(self: docker.APIClient, *arguments: Any, **options: Any) -> Any:
        made.append(create(self, *arguments, **options)["Id"])
        raise requests.ReadTimeout("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(docker.APIClient, "create_container", silently)
        with pytest.raises(TemporaryError):
            pool.prepare()
    client = docker.APIClient(base_url=docker_host)
    assert made
    assert set(made) <= set(left(client, tmp_path))
    pool.prepare()
    full(pool)
    until(lambda: set(left(client, tmp_path)) == set(waiting(pool)))
    pool.close()
    nothing_is_left(client, tmp_path)
    client.close()
