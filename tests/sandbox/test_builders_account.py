"""An attacker with the builder's account owns the store and builds/, but is root nowhere, on the host or in containers.

The attacker is a process of its own, as the user who owns both. It does what it can before the executor starts. Every
program in its store leaves a canary that tells as which user it runs.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import msgspec
import pytest
from msgspec.structs import replace

from spoold.actors.executor import Executor
from spoold.actors.intake import Intake
from spoold.config import NixSettings, Settings
from spoold.engines.docker.sandbox import DockerSandbox
from spoold.model import ids
from spoold.model.errors import OperatorError
from spoold.model.ids import Entry
from spoold.model.job import BuildResult, Runtime
from spoold.model.response import Outcome, Phase
from spoold.model.states import State
from spoold.model.submission import DEFAULT_EXPRESSION, Dependencies
from spoold.nix.build import NixBuilder
from spoold.sandbox import program
from spoold.spool import layout
from spoold.spool.builds import BuildStore
from tests.engines import SLOWNESS
from tests.sandbox.cells import family
from tests.sandbox.conftest import Mode, settings_for
from tests.standins import store_path

pytestmark = [
    pytest.mark.docker,
    pytest.mark.nix,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else"),
]
ATTACKER = 64_101
PATIENCE = 60.0 * SLOWNESS  # seconds
PYTHON, SHELL = store_path("python3-3.11.2"), store_path("shell")
CANARY = """#!{bash}.real
echo "canary: {name} as $EUID" >&2
if [ $EUID = 0 ]; then exit 42; fi
{{ read -r line </etc/shadow; }} 2>/dev/null && echo "canary: shadow $line" >&2
exec {bash}.real "$@"
"""
# The attacker's start of a job. It looks for anything of root's that it could reach.
ENTER = """
echo "canary: enter.sh as $EUID" >&2
test -r /spoold/sbin && echo "canary: can list our program" >&2
for each in /spoold/sbin/supervisor /proc/1/exe /proc/1/maps; do
    { IFS= read -r -N 1 line <"$each"; } 2>/dev/null && echo "canary: can read $each" >&2
done
cd /spoold/sbin 2>/dev/null && echo "canary: can enter where our program is" >&2
/spoold/sbin/supervisor >/dev/null 2>&1; test $? = 126 || echo "canary: can start our program" >&2
for each in /spoold /spoold/enter.sh /etc/passwd /bin /; do
    test -w "$each" && echo "canary: can write $each" >&2
done
true
"""


class Room:
    """A spool and a store that the attacker owns and the executor uses."""

    def __init__(self, directory: Path, settings: Settings, runtime: Runtime) -> None:
        self.spool, self.state = directory / "spool", directory / "state"
        self.settings = replace(settings, nix=NixSettings(state=str(self.state)), nixpkgs={"default": "/srv/nixpkgs"})
        self.settings = replace(self.settings, spool=replace(settings.spool, path=str(self.spool), settle=0.1))
        self.runtime = runtime
        self.builds = BuildStore(self.settings)
        self.store = Path(self.settings.nix.physical_store)
        layout.create(str(self.spool))
        for path in (self.spool / "builds").rglob("*"):
            os.chown(path, ATTACKER, ATTACKER)
        os.chown(self.spool / "builds", 0, ATTACKER)
        (self.spool / "builds").chmod(0o770)

    def fill(self, source: Path) -> None:
        """Copy the runtime's closure into the store, and give all of it to the attacker."""
        self.store.mkdir(parents=True)
        paths = [source / path.rpartition("/")[2] for path in self.runtime.closure]
        subprocess.run(["cp", "-a", *paths, self.store], check=True)
        subprocess.run(["chown", "-hR", f"{ATTACKER}:{ATTACKER}", self.store], check=True)

    def on_disk(self, path: str) -> Path:
        return self.store / path.removeprefix("/nix/store/")

    def attack(self, act: Callable[[], object]) -> None:
        """Run a function as the attacker."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setgroups([])
                os.setresgid(ATTACKER, ATTACKER, ATTACKER)
                os.setresuid(ATTACKER, ATTACKER, ATTACKER)
                act()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    def write(self, path: Path, content: str, mode: int = 0o755) -> None:
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(content)
        path.chmod(mode)

    def tell(self, **changes: object) -> None:
        """Write an honest builder's runtime with ``changes``."""
        told = msgspec.to_builtins(self.runtime) | {"nixpkgs": {"default": PYTHON}} | changes
        path = Path(self.builds.runtime.path)
        path.unlink(missing_ok=True)
        path.write_bytes(msgspec.json.encode(told))

    def poison(self) -> None:
        """Put canaries into the store, and a build that leads to them into the spool."""
        bash = f"{self.runtime.bash}/bin/bash"
        real = self.on_disk(bash)
        for directory in (real.parent, real.parent.parent):
            directory.chmod(0o755)
        real.rename(f"{real}.real")
        self.write(real, CANARY.format(name="bash", bash=bash))
        for name in ("python3", "python3.11"):
            self.write(self.on_disk(f"{PYTHON}/bin/{name}"), CANARY.format(name=name, bash=bash))
        self.write(self.on_disk(f"{SHELL}/enter.sh"), ENTER)
        self.tell()
        build_id = ids.build_id(DEFAULT_EXPRESSION, PYTHON, self.runtime.system)
        self.builds.request(Dependencies(build_id=build_id, expression=DEFAULT_EXPRESSION, nixpkgs=PYTHON))
        self.builds.queue.claim(Entry(build_id, 1), State.NEW, State.BUILDING)
        closure = sorted({*self.runtime.closure, PYTHON, SHELL})
        result = BuildResult(phase=Phase(outcome=Outcome.OK), shell=SHELL, closure=closure)
        self.builds.finish(Entry(build_id, 1), result, 0.0)

    def replace_store(self) -> None:
        """Try to replace the store by a link to /."""
        try:
            self.store.rename(f"{self.store}.aside")
            self.store.symlink_to("/")
        except PermissionError:
            return
        raise AssertionError("the attacker can replace the store")


@pytest.fixture
def room(docker_host: str, prepared: tuple[NixBuilder, Runtime], mode: Mode) -> Iterator[Room]:
    directory = Path(tempfile.mkdtemp(prefix="spoold-", dir="/tmp"))
    directory.chmod(0o711)  # the attacker can reach their own directories
    settings = settings_for(docker_host, str(directory / "spool"), waiting=1, mode=mode)
    settings = replace(settings, sandbox=replace(settings.sandbox, view="required"))
    builder, runtime = prepared
    made = Room(directory, settings, runtime)
    made.fill(builder.store.physical)
    yield made
    shutil.rmtree(directory)


@pytest.fixture
def executor(room: Room, api: docker.APIClient) -> Iterator[Executor]:
    """Yield the real executor on the real engine. It is not started."""
    made = Executor(room.settings, lambda runtime: DockerSandbox(room.settings, runtime))
    yield made
    made.stop()
    assert containers(api, room) == []


def containers(api: docker.APIClient, room: Room) -> list[str]:
    found = api.containers(all=True, filters={"label": f"spoold.spool={room.spool}"})
    return [each["Id"] for each in found]


def run(room: Room, executor: Executor, caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """Run a submission and return its response."""
    name = "job"
    request = {"files": [{"name": "run.sh", "content": "#!/bin/sh\necho done; ls /nix/store"}]}
    (room.spool / "incoming" / f"{name}.json").write_bytes(msgspec.json.encode(request))
    intake = Intake(room.settings)
    response = room.spool / "done" / f"{name}.response.json"
    deadline = time.monotonic() + PATIENCE
    while not response.exists():
        # If the executor cannot start a container, its log has what ran in the container before any job.
        assert not [record for record in caplog.records if "canary" in str(vars(record))]
        assert time.monotonic() < deadline, caplog.text
        intake.step()
        executor.step()
        time.sleep(0.01)
    answer: dict[str, Any] = json.loads(response.read_bytes())
    return answer


def test_nothing_of_the_attackers_runs_as_root(
    room: Room, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    room.attack(room.replace_store)
    room.attack(room.poison)
    executor.start()
    answer = run(room, executor, caplog)
    assert answer["status"] == "COMPLETED", answer
    lines = answer["run"]["stderr"].splitlines()
    canaries = {line.removeprefix("canary: ") for line in lines if line.startswith("canary: ")}
    names = {line.partition(" as ")[0] for line in canaries}
    assert names == {"bash", "enter.sh"}, canaries  # only these ran, and they found nothing of root's
    assert {line.partition(" as ")[2] for line in canaries} & {"0", ""} == set(), canaries
    assert "done" in answer["run"]["stdout"]
    assert "etc" not in answer["run"]["stdout"].split()


def test_what_runs_as_root_has_nothing_of_the_attackers_loaded(
    room: Room, executor: Executor, api: docker.APIClient, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    room.attack(room.poison)
    executor.start()
    run(room, executor, caplog)
    deadline = time.monotonic() + PATIENCE
    seen: set[str] = set()
    while seen < {"supervisor"} if mode == "recycled" else seen < {"supervisor", "porter"}:
        assert time.monotonic() < deadline, seen
        for container in containers(api, room):
            with contextlib.suppress(docker.errors.NotFound, FileNotFoundError, ProcessLookupError):
                found = api.inspect_container(container)  # used containers are removed at any time
                if not found["State"]["Running"]:
                    continue
                for pid in family(found["State"]["Pid"]):
                    if is_runtimes(pid):
                        continue
                    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()  # empty once the process has ended
                    mapped = {line.split()[5] for line in lines if "/" in line}
                    assert not lines or mapped - {"/dev/zero"} == {program.IN_IMAGE}  # memory that processes share
                seen.add(found["Config"]["Labels"].get("spoold.role", "supervisor"))


def is_runtimes(pid: int) -> bool:
    """Tell whether a process still runs the engine's own runtime, which has not started its program yet."""
    path = Path(f"/proc/{pid}/exe").readlink()
    return "runc" in path.name and not path.is_relative_to("/nix/store")


def test_a_runtime_that_leads_to_the_host_starts_nothing(
    room: Room, executor: Executor, api: docker.APIClient, caplog: pytest.LogCaptureFixture
) -> None:
    before = {each["Id"] for each in api.images(all=True)}
    room.attack(room.poison)
    room.attack(lambda: room.tell(store="/", python="/tmp/static", bash="/usr"))
    executor.start()
    for _ in range(3):
        executor.step()
    assert containers(api, room) == []
    assert {each["Id"] for each in api.images(all=True)} <= before
    assert len([line for line in caplog.messages if "no work is taken until the builder" in line]) == 1
    room.attack(room.tell)
    assert run(room, executor, caplog)["status"] == "COMPLETED"


@pytest.mark.parametrize("mode", ["single-use"], indirect=True)
def test_a_store_whose_place_can_be_taken_is_not_mounted(room: Room, api: docker.APIClient) -> None:
    sandbox = DockerSandbox(room.settings, room.runtime)
    os.chown(room.store.parent, ATTACKER, ATTACKER)
    with pytest.raises(OperatorError, match=rf"^{room.store.parent} belongs to.*spoolctl init"):
        sandbox.prepare()
    room.attack(lambda: room.store.rename(f"{room.store}.aside"))
    room.attack(lambda: room.store.symlink_to("/"))
    with pytest.raises(OperatorError, match="belongs to"):
        sandbox.prepare()
    os.chown(room.store.parent, 0, 0)
    with pytest.raises(OperatorError, match=rf"^{room.store} belongs to"):
        sandbox.prepare()
    sandbox.close()
    assert containers(api, room) == []
