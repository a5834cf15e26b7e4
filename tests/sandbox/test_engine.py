"""The engine around jobs: it leaves nothing behind. Each failure is told, with the side that is to blame."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from msgspec.structs import replace

from spoold.config import Settings
from spoold.engines.docker import container as container_module
from spoold.engines.docker import family, image, walls
from spoold.engines.docker.container import start as start_container
from spoold.engines.docker.porter import ROLE
from spoold.engines.docker.sandbox import DockerSandbox
from spoold.model.errors import ClientError, OperatorError, TemporaryError
from spoold.model.job import JobResult, Runtime
from spoold.model.limits import MIB, Limits
from spoold.sandbox import RunCancelledError, root, schedule
from spoold.sandbox.facts import LINE
from spoold.sandbox.stream import BrokenError
from tests.rights import in_child
from tests.sandbox.conftest import RUN, Mode, Run, make_job, settings_for
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.docker
Make = Callable[[Runtime], DockerSandbox]


@pytest.fixture
def make(docker_host: str, tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Yield a function that prepares a sandbox for one test. The sandbox makes each container when its job comes.

    Used ones are removed soon, however busy the machine is.
    """
    monkeypatch.setattr(schedule, "LINGER", 0.1)
    made = []

    def _make(runtime: Runtime) -> DockerSandbox:
        made.append(DockerSandbox(settings_for(docker_host, str(tmp_path), mode=mode), runtime))
        made[-1].prepare()
        return made[-1]

    yield _make
    for each in made:
        each.close()


@pytest.fixture
def own(make: Make, runtime: Runtime) -> DockerSandbox:
    """Return such a sandbox."""
    return make(runtime)


def left(api: docker.APIClient, spool: Path) -> list[str]:
    """Return the ids of the containers of jobs that belong to ``spool``."""
    found = api.containers(all=True, filters={"label": f"spoold.spool={spool}"})
    return [each["Id"] for each in found if ROLE not in each["Labels"]]


def start(
    sandbox: DockerSandbox, script: str, shell: str
) -> tuple[concurrent.futures.Future[JobResult], threading.Event]:
    """Run ``script`` in a thread."""
    cancelled = threading.Event()
    pool = concurrent.futures.ThreadPoolExecutor(1)
    job = make_job(script, shell=shell, limits=replace(RUN, time=600, cpu_time=600))
    future: concurrent.futures.Future[JobResult] = pool.submit(sandbox.run, job, lambda *_: None, cancelled)
    pool.shutdown(wait=False)
    return future, cancelled


def nothing_is_left(api: docker.APIClient, spool: Path) -> None:
    """Wait until all containers of ``spool`` are removed, which may be after the result."""
    until(lambda: left(api, spool) == [])


def running(api: docker.APIClient, spool: Path) -> str:
    """Wait until the job's program, which sleeps, runs in the only container of ``spool``. Return the container."""

    def runs() -> bool:
        try:
            return any("sleep 600" in str(api.top(found)["Processes"]) for found in left(api, spool))
        except docker.errors.APIError:  # the container has not started yet
            return False

    until(runs)
    return left(api, spool)[0]


def test_nothing_is_left_after_jobs(
    own: DockerSandbox, api: docker.APIClient, tmp_path: Path, plain_shell: str
) -> None:
    volumes = api.volumes()["Volumes"]
    for script in ("true", "exit 1", "kill -9 -1; kill -9 $$"):
        own.run(make_job(script, shell=plain_shell), lambda *_: None, threading.Event())
    nothing_is_left(api, tmp_path)
    assert api.volumes()["Volumes"] == volumes


def test_nothing_is_left_after_errors(
    own: DockerSandbox, api: docker.APIClient, tmp_path: Path, plain_shell: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="own"):
        own.run(make_job("true", shell=plain_shell), fail, threading.Event())
    bad = make_job("true", shell=plain_shell, files={"../escape": b""})
    with pytest.raises(BrokenError, match="bad file name"):
        own.run(bad, lambda *_: None, threading.Event())
    nothing_is_left(api, tmp_path)


def test_a_cancelled_run_ends_soon(own: DockerSandbox, api: docker.APIClient, tmp_path: Path, plain_shell: str) -> None:
    future, cancelled = start(own, "sleep 600", plain_shell)
    running(api, tmp_path)
    cancelled.set()
    with pytest.raises(RunCancelledError):
        future.result(timeout=PATIENCE)
    nothing_is_left(api, tmp_path)


@pytest.mark.parametrize("removed", [False, True], ids=["it dies", "it is removed"])
def test_a_container_that_is_lost_is_ours_and_temporary(
    own: DockerSandbox, api: docker.APIClient, tmp_path: Path, plain_shell: str, *, removed: bool
) -> None:
    future, _ = start(own, "sleep 600", plain_shell)
    container = running(api, tmp_path)
    api.remove_container(container, force=True) if removed else api.kill(container)
    with pytest.raises(TemporaryError, match="the sandbox was lost"):
        future.result(timeout=PATIENCE)
    nothing_is_left(api, tmp_path)


def test_a_supervisor_stops_when_its_host_is_gone(own: DockerSandbox, api: docker.APIClient, tmp_path: Path) -> None:
    assert own._plan is not None
    container = start_container(own._engine, own._plan, threading.Event())
    (found,) = left(api, tmp_path)
    container.transport.stream.close()
    until(lambda: not api.inspect_container(found)["State"]["Running"])
    assert api.inspect_container(found)["State"]["ExitCode"] == 0
    container.close()
    nothing_is_left(api, tmp_path)


def test_orphans_are_removed_and_others_are_not(
    docker_host: str, runtime: Runtime, api: docker.APIClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = (DockerSandbox(settings_for(docker_host, str(tmp_path), name), runtime) for name in ("a", "b"))
    waiting = []
    for sandbox in (mine, other):
        sandbox.prepare()
        assert sandbox._plan is not None
        waiting.append(start_container(sandbox._engine, sandbox._plan, threading.Event()))
    assert len(left(api, tmp_path)) == 2
    mine.prepare()
    again = DockerSandbox(settings_for(docker_host, str(tmp_path), "a"), runtime)
    again.prepare()
    assert len(left(api, tmp_path)) == 2  # this process still uses them
    again.close()
    monkeypatch.setattr(family, "PROCESS", "another")
    successor = DockerSandbox(settings_for(docker_host, str(tmp_path), "a"), runtime)
    successor.prepare()
    successor.close()
    (kept,) = left(api, tmp_path)
    assert api.inspect_container(kept)["Config"]["Labels"]["spoold.executor"] == "b"
    other.close()
    mine.close()
    nothing_is_left(api, tmp_path)
    for container in waiting:
        container.close()


def test_the_walls_as_the_engine_has_them(
    own: DockerSandbox, api: docker.APIClient, tmp_path: Path, nix_settings: Settings, mode: Mode
) -> None:
    assert own._plan is not None
    container = start_container(own._engine, own._plan, threading.Event())
    try:
        (found,) = left(api, tmp_path)
        host = api.inspect_container(found)["HostConfig"]
        mounts = api.inspect_container(found)["Mounts"]
    finally:
        container.close()
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    assert sorted(name.removeprefix("CAP_") for name in host["CapAdd"]) == ["KILL", "SETGID", "SETUID"]
    options = host["SecurityOpt"]
    assert options[0] == "no-new-privileges"
    assert json.loads(options[1].removeprefix("seccomp="))["defaultAction"] == "SCMP_ACT_ERRNO"
    assert options[2:] == (["apparmor=unconfined"] if mode == "recycled" else [])
    assert host["MemorySwap"] == host["Memory"] > 0
    places = {mount["Destination"]: mount["Source"] for mount in mounts}
    assert places.pop("/nix/store") == nix_settings.nix.physical_store
    assert [*places] == ([LINE] if mode == "recycled" else [])
    assert not any(mount["RW"] for mount in mounts)
    assert (container.transport.ready.no_new_privileges, container.transport.ready.seccomp) == (1, 2)
    assert container.transport.ready.capabilities == 1 << 5 | 1 << 6 | 1 << 7


def test_many_at_once(own: DockerSandbox, api: docker.APIClient, tmp_path: Path, plain_shell: str) -> None:
    def one(number: int) -> str:
        job = make_job("cat; echo $1", shell=plain_shell, stdin=b"in ", args=(str(number),))
        return own.run(job, lambda *_: None, threading.Event()).run.stdout

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(12))) == [f"in {number}\n" for number in range(12)]
    nothing_is_left(api, tmp_path)


def test_a_script_written_and_executed_at_once(run: Run) -> None:
    script = '#!/bin/bash\nfor i in {1..200}; do printf "#!/bin/sh\\necho $i" >s$i; chmod +x s$i; ./s$i & done; wait'
    phase = run(script, limits=replace(RUN, processes=250)).run
    assert sorted(map(int, phase.stdout.split())) == list(range(1, 201))
    assert phase.stderr == ""


def test_a_large_job_that_does_not_fit_is_refused_while_it_is_sent(
    docker_host: str, runtime: Runtime, tmp_path: Path, plain_shell: str
) -> None:
    settings = replace(settings_for(docker_host, str(tmp_path)), limits=Limits(work_size=1 * MIB))
    sandbox = DockerSandbox(settings, runtime)
    sandbox.prepare()
    job = make_job("true", shell=plain_shell, files={"big": b"x" * 24 * MIB}, stdin=b"y" * 24 * MIB)
    with pytest.raises(ClientError, match="No space left"):
        sandbox.run(job, lambda *_: None, threading.Event())
    sandbox.close()


def test_an_image_that_is_gone_is_made_again(
    make: Make, runtime: Runtime, api: docker.APIClient, plain_shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = root.archive(runtime)
    # otherwise containers of other tests would use this image
    monkeypatch.setattr(root, "archive", lambda _: content + bytes(512))
    own = make(replace(runtime, closure=[]))  # otherwise a porter would use it
    assert own._plan is not None
    before = own._plan.image
    api.remove_image(before.id, force=True)
    result = own.run(make_job("echo hi", shell=plain_shell), lambda *_: None, threading.Event())
    assert result.run.stdout == "hi\n"
    assert own._plan.image.name == before.name
    assert own._plan.image.id != before.id
    own.close()
    api.remove_image(own._plan.image.id, force=True)  # only this test uses it


def test_an_engine_that_filters_no_system_calls_gets_no_work(
    docker_host: str, runtime: Runtime, tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walls, "seccomp", lambda **_: "unconfined")
    with pytest.raises(OperatorError, match="without a seccomp profile"):
        DockerSandbox(settings_for(docker_host, str(tmp_path), mode=mode), runtime).prepare()


def test_an_engine_that_ignores_limits_gets_no_work(
    docker_host: str, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlimited(*words: Any) -> dict[str, Any]:
        made = walls.configuration(*words)
        made["host_config"] |= {"Memory": 0, "MemorySwap": 0}
        return made

    monkeypatch.setattr(container_module, "configuration", unlimited)
    with pytest.raises(OperatorError, match="bytes were asked for, and the control group has"):
        DockerSandbox(settings_for(docker_host, str(tmp_path)), runtime).prepare()


def test_images_that_nobody_uses_any_more_are_removed(
    docker_host: str, runtime: Runtime, api: docker.APIClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = DockerSandbox(settings_for(docker_host, str(tmp_path)), runtime)
    old, used = f"{'0' * 15}1", f"{'0' * 15}2"
    for tag in (old, f"{old}-source", used, "mine"):
        api.import_image_from_data(root.archive(runtime) + tag.encode(), repository=image.REPOSITORY, tag=tag)
    container = api.create_container(f"{image.REPOSITORY}:{used}", command="none")["Id"]

    def tags() -> set[str]:
        found = [tag for found in api.images(name=image.REPOSITORY) for tag in found["RepoTags"] or ()]
        return {tag.partition(":")[2] for tag in found}

    try:
        sandbox.prepare()
        assert tags() >= {old, f"{old}-source", used, "mine"}  # images that look new may still be in the making
        monkeypatch.setattr(image, "GRACE", 0.0)
        sandbox.prepare()
        assert sandbox._plan is not None
        current = sandbox._plan.image.name.partition(":")[2]
        assert tags() >= {current, used, "mine"}
        assert not tags() & {old, f"{old}-source"}
    finally:
        sandbox.close()
        api.remove_container(container)
        for tag in tags() & {old, f"{old}-source", used, "mine"}:
            api.remove_image(f"{image.REPOSITORY}:{tag}", force=True)


def test_memory_that_kills_the_supervisor_too_is_still_the_jobs_limit(
    own: DockerSandbox, api: docker.APIClient, tmp_path: Path, plain_shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    future, _ = start(own, "sleep 600", plain_shell)
    found = running(api, tmp_path)
    state = {"State": {"OOMKilled": True, "Running": False}}
    monkeypatch.setattr(docker.APIClient, "inspect_container", lambda *_: state)
    api.kill(found)
    phase = future.result(timeout=PATIENCE).run
    assert (phase.outcome, phase.signal, phase.memory) == ("memory_limit", "SIGKILL", RUN.memory)


def test_no_engine(runtime: Runtime, tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/none.sock"
    sandbox = DockerSandbox(settings_for(nowhere, str(tmp_path)), runtime)
    with pytest.raises(TemporaryError, match=r"none\.sock .*Start the engine"):
        sandbox.prepare()
    with pytest.raises(TemporaryError, match="not prepared"):
        sandbox.run(make_job("true", shell=""), lambda *_: None, threading.Event())


def test_something_else_listens(runtime: Runtime, tmp_path: Path) -> None:
    path = str(tmp_path / "other.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def answer() -> None:
            for _ in range(2):  # the probe, then a request
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(b"SSH-2.0-x\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(TemporaryError, match=r"other\.sock"):
            DockerSandbox(settings_for(f"unix://{path}", str(tmp_path)), runtime).prepare()
        thread.join()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without the right")
def test_no_permission(runtime: Runtime, docker_host: str, tmp_path: Path) -> None:
    def prepare() -> None:
        with pytest.raises(OperatorError):
            DockerSandbox(settings_for(docker_host, str(tmp_path)), runtime).prepare()

    in_child(prepare, 65533)


def test_a_runtime_that_is_not_there(docker_host: str, runtime: Runtime, tmp_path: Path) -> None:
    gone = f"/nix/store/{'0' * 32}-none"
    settings = settings_for(docker_host, str(tmp_path))
    settings = replace(settings, sandbox=replace(settings.sandbox, view="required"))
    with pytest.raises(OperatorError, match=r"not possible here.*-none"):
        DockerSandbox(settings, replace(runtime, closure=[*runtime.closure, gone])).prepare()
