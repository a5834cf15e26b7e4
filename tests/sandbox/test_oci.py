"""The engine oci, an OCI runtime without a daemon: what it makes, leaves and refuses, and who owns a container."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from spoold.config import Settings
from spoold.engines.oci import doctor, host, place
from spoold.engines.oci.container import Container
from spoold.engines.oci.sandbox import OciSandbox
from spoold.host import cgroups, groups
from spoold.model.errors import OperatorError, TemporaryError
from spoold.model.findings import Level
from spoold.model.job import JobResult, Runtime
from spoold.model.limits import MIB
from spoold.model.response import Outcome
from spoold.sandbox import RunCancelledError, schedule
from spoold.sandbox.runner import Runner
from tests import engines
from tests.sandbox.conftest import RUN, Mode, made_sandbox, make_job, settings_for
from tests.waiting import PATIENCE, until

pytestmark = [pytest.mark.docker, pytest.mark.nix, pytest.mark.engines]
Make = Callable[..., OciSandbox]
STRAY = f"spoold-stray-{os.getpid()}"


@pytest.fixture(autouse=True)
def _oci() -> None:
    engines.need_oci()


@pytest.fixture
def make(runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Yield a function that makes an executor's sandbox on one spool, not prepared. All are closed at the end.

    Used containers are removed soon, however busy the machine is.
    """
    monkeypatch.setattr(schedule, "LINGER", 0.1)
    made: list[OciSandbox] = []

    def _make(executor: str = "tests", *, mode: Mode = "single-use", **changes: str) -> OciSandbox:
        settings = settings_for(engines.OCI, str(tmp_path / "spool"), executor, mode=mode)
        made.append(OciSandbox(replace(settings, oci=replace(settings.oci, **changes)), runtime))
        return made[-1]

    yield _make
    for each in made:
        each.close()


@pytest.fixture
def own(make: Make, mode: Mode) -> OciSandbox:
    """Return a sandbox for one test. It makes each container when its job comes."""
    made = make(mode=mode)
    made.prepare()
    return made


def containers(tmp_path: Path) -> list[Path]:
    """Return the directories of all containers on the spool."""
    return sorted((tmp_path / "spool.oci").glob("*/*/spoold-*"))


def start(sandbox: OciSandbox, script: str, shell: str) -> tuple[Future[JobResult], threading.Event]:
    """Run ``script`` in a thread."""
    cancelled = threading.Event()
    job = make_job(script, shell=shell, limits=replace(RUN, time=600, cpu_time=600))
    with_one = ThreadPoolExecutor(1)
    future = with_one.submit(sandbox.run, job, lambda *_: None, cancelled)
    with_one.shutdown(wait=False)
    return future, cancelled


def running(tmp_path: Path) -> groups.Group:
    """Wait until a job's program, which sleeps, runs in the only container. Return its group."""
    seen: list[groups.Group] = []

    def runs() -> bool:
        for each in containers(tmp_path):
            group = groups.settle().group(each.name)
            for pid in group._processes():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                    if b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        seen.append(group)
        return bool(seen)

    until(runs)
    return seen[0]


def kill_the_supervisor(group: groups.Group) -> None:
    """Kill process 1 of the container, which is one namespace of processes."""
    for pid in group._processes():
        status = Path(f"/proc/{pid}/status").read_text()
        if next(line.split()[2:] for line in status.splitlines() if line.startswith("NSpid:")) == ["1"]:
            group._kill(pid)
            return
    raise AssertionError("there is no supervisor")


def config(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((containers(tmp_path)[0] / "config.json").read_text())
    return found


def test_the_walls_as_the_runtime_has_them(own: OciSandbox, tmp_path: Path, nix_settings: Settings) -> None:
    container = own.on_trial()
    try:
        made = config(tmp_path)
        group = container.transport.group
        limits = (group.memory(), int((group.places["pids"] / "pids.max").read_text()))
        status = Path(f"/proc/{container.transport.pid}/status").read_text()
    finally:
        container.close()
    assert made["root"]["readonly"] is True
    assert made["process"]["noNewPrivileges"] is True
    assert {kind["type"] for kind in made["linux"]["namespaces"]} >= {"pid", "ipc", "uts", "mount", "network"}
    assert made["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    store = next(mount for mount in made["mounts"] if mount["type"] == "bind")
    assert (store["destination"], store["source"]) == ("/nix/store", nix_settings.nix.physical_store)
    assert "ro" in store["options"]
    ready, size = container.transport.ready, container.transport.size
    assert (ready.no_new_privileges, ready.seccomp, ready.capabilities) == (1, 2, 1 << 5 | 1 << 6 | 1 << 7)
    assert limits == (size.memory, size.processes)
    assert ready.memory == size.memory
    assert "Seccomp_filters:\t1" in status or "Seccomp:\t2" in status


def test_nothing_is_left_after_jobs_and_errors(
    own: OciSandbox, tmp_path: Path, plain_shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: set[Path] = set()
    write_down = place.write_down

    def noted(directory: str, group: groups.Group) -> None:
        if directory.startswith(str(tmp_path)):  # other sandboxes of this process may make containers at any time
            made.update(group.places.values())
        write_down(directory, group)

    monkeypatch.setattr(place, "write_down", noted)
    for script in ("true", "exit 1", "kill -9 -1; kill -9 $$"):
        own.run(make_job(script, shell=plain_shell), lambda *_: None, threading.Event())

    def fail(*_: object) -> None:
        raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="own"):
        own.run(make_job("true", shell=plain_shell), fail, threading.Event())
    until(lambda: not containers(tmp_path))
    assert made
    assert not [each for each in made if each.exists()]
    own.close()
    assert not [each for each in (tmp_path / "spool.oci").iterdir() if each.is_dir()]


def test_a_cancelled_run_ends_soon(own: OciSandbox, tmp_path: Path, plain_shell: str) -> None:
    future, cancelled = start(own, "sleep 600", plain_shell)
    running(tmp_path)
    cancelled.set()
    with pytest.raises(RunCancelledError):
        future.result(timeout=PATIENCE)
    until(lambda: not containers(tmp_path))


def test_a_container_that_is_lost_is_ours_and_temporary(own: OciSandbox, tmp_path: Path, plain_shell: str) -> None:
    future, _ = start(own, "sleep 600", plain_shell)
    kill_the_supervisor(running(tmp_path))
    with pytest.raises(TemporaryError, match="the sandbox was lost"):
        future.result(timeout=PATIENCE)
    until(lambda: not containers(tmp_path))


def test_memory_that_kills_the_supervisor_too_is_still_the_jobs_limit(
    own: OciSandbox, tmp_path: Path, plain_shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    future, _ = start(own, "sleep 600", plain_shell)
    group = running(tmp_path)
    monkeypatch.setattr(groups.Group, "oom_kills", lambda _: 1)
    kill_the_supervisor(group)
    phase = future.result(timeout=PATIENCE).run
    assert (phase.outcome, phase.signal, phase.memory) == ("memory_limit", "SIGKILL", RUN.memory)


def test_the_kernel_counts_what_it_ended_for_want_of_memory(own: OciSandbox, plain_shell: str) -> None:
    container = own.on_trial()
    try:
        small = replace(RUN, memory=4 * MIB)
        job = make_job("x=x; while :; do x=$x$x; done", shell=plain_shell, limits=small)
        assert container.run(job, lambda *_: None, threading.Event()).run.outcome is Outcome.MEMORY_LIMIT
        container.transport.group.limit(MIB, 10)
    except TemporaryError:  # the kernel may refuse a limit below the current usage
        pass
    finally:
        container.close()


def test_a_size_is_changed_and_a_cpu_chosen_by_the_groups_files(own: OciSandbox) -> None:
    container: Runner[Container] = own.on_trial()
    try:
        transport = container.transport
        for memory in (transport.size.memory * 2, transport.size.memory // 2):
            transport.resize(type(transport.size)(memory, 77))
            assert transport.group.memory() == memory
            assert (transport.group.places["pids"] / "pids.max").read_text() == "77\n"
        transport.pin(0)
        allowed = Path(f"/proc/{transport.pid}/status").read_text()
        assert "Cpus_allowed_list:\t0\n" in allowed
    finally:
        container.close()


def test_orphans_are_removed_and_others_are_not(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = []
    for name in ("a", "b"):
        sandbox = make(name)
        sandbox.prepare()
        waiting.append(sandbox.on_trial())
    again = make("a")
    again.prepare()
    assert len(containers(tmp_path)) == 2, "this process still uses them"
    monkeypatch.setattr(place, "PROCESS", "another")
    make("a").prepare()
    assert [each.parts[-3].split("-")[0] for each in containers(tmp_path)] == ["b"]
    assert not waiting[0].alive()
    assert waiting[1].alive()
    for each in waiting:
        each.close()


KILLED = """
import os, sys
from spoold.engines.oci import place
from spoold.config.file import decode
from spoold.host import groups
made = place.Place(decode(sys.stdin.buffer.read()))
made.prepare()
group = groups.settle().group({group!r})
place.write_down(os.path.join(made.path, {group!r}), group)
group.make(1 << 26, 10)
for each in group.places.values():
    each.mkdir(parents=True, exist_ok=True)  # as a runtime does in all trees
print(made.path, flush=True)
sys.stdin.close()
os.read(int(sys.argv[1]), 1)
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_executor_of_another_name_left_is_removed(make: Make, tmp_path: Path) -> None:
    """A pilot may have any name of its pool when it comes to this host again."""
    name = f"spoold-{uuid.uuid4().hex}"
    settings = settings_for(engines.OCI, str(tmp_path / "spool"), "other")
    ends, tell = os.pipe()
    command = [sys.executable, "-c", KILLED.format(group=name), str(ends)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[ends]) as other:
        assert other.stdin
        assert other.stdout
        other.stdin.write(msgspec.toml.encode(settings))
        other.stdin.close()
        left = Path(other.stdout.readline().decode().strip())
        group = groups.settle().group(name)
        make("a").prepare()
        assert all(each.exists() for each in (left, *group.places.values())), "its executor lives"
        os.write(tell, b".")
    os.close(ends)
    os.close(tell)
    make("b").prepare()
    assert not any(each.exists() for each in (left.parent, *group.places.values()))


def test_what_another_host_or_an_earlier_version_left_in_a_shared_directory_stays(make: Make, tmp_path: Path) -> None:
    sandbox = make("a")
    family = Path(sandbox._place._base) / "other"
    for name in ("theirs", "old"):
        (family / name).mkdir(parents=True)
    family.chmod(0o700)
    (family / "theirs" / place.ALIVE).write_text("another boot")
    sandbox.prepare()
    assert {each.name for each in family.iterdir()} == {"theirs", "old"}


def test_what_a_process_left_in_the_middle_of_a_start_is_removed(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill may come between any two steps."""
    first = make("a")
    first.prepare()
    group = groups.settle().group(f"spoold-{'0' * 32}")
    directory = Path(first._place.path, f"spoold-{'0' * 32}")
    place.write_down(str(directory), group)
    group.make(64 * MIB, 10)
    (directory.parent / "spoold-empty").mkdir()
    (directory.parent / "spoold-half").mkdir()
    (directory.parent / "spoold-half" / place.GROUP).write_text("")
    monkeypatch.setattr(place, "PROCESS", "another")
    make("a").prepare()
    assert not directory.parent.exists()
    assert not any(each.exists() for each in group.places.values())


def edited(tmp_path: Path, change: str) -> str:
    """Return a runtime that runs ``change``, a Python statement, on config.json before runc reads it."""
    runc = host.runtimes(Settings(), groups.settle())[-1]
    script = tmp_path / "runtime"
    script.write_text(
        f"#!{sys.executable} -IS\n"
        "import json, os, sys\n"
        "if 'run' in sys.argv:\n"
        "    path = sys.argv[sys.argv.index('--bundle') + 1] + '/config.json'\n"
        "    config = json.load(open(path))\n"
        f"    {change}\n"
        "    json.dump(config, open(path, 'w'))\n"
        f"os.execv({runc!r}, [{runc!r}, *sys.argv[1:]])\n"
    )
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("del config['linux']['seccomp']", "without a seccomp profile"),
        ("config['process']['noNewPrivileges'] = False", "no-new-privileges"),
        (f"config['linux']['cgroupsPath'] = '/{STRAY}'", "control group"),
    ],
)
def test_a_runtime_that_does_not_do_what_it_is_told_gets_no_work(
    make: Make, tmp_path: Path, change: str, words: str
) -> None:
    with pytest.raises((OperatorError, TemporaryError), match=words):
        make(runtime=edited(tmp_path, change)).prepare()
    assert not containers(tmp_path)
    assert not list(cgroups.MOUNT.glob(f"*/{STRAY}")), "a group is left where the runtime was not told to make it"


def test_a_runtime_that_is_not_there_or_anybodys_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"no oci\.runtime '/none'.*install"):
        make(runtime="/none").prepare()
    script = Path(edited(tmp_path, "pass"))
    script.chmod(0o777)
    with pytest.raises(OperatorError, match="can be changed by everybody"):
        make(runtime=str(script)).prepare()


def test_a_runtime_that_starts_nothing_is_temporary_and_said(make: Make) -> None:
    with pytest.raises(TemporaryError, match="the sandbox did not start"):
        make(runtime=str(shutil.which("false"))).prepare()


def test_without_control_groups_there_is_no_work(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "trees", lambda _: {})
    monkeypatch.setattr(cgroups, "unified", lambda *_: {})
    with pytest.raises(OperatorError, match=r"limits memory and pids: .*Delegate=yes"):
        make().prepare()


def test_the_state_directory_of_somebody_else_is_refused(make: Make, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(0o777)
    with pytest.raises(OperatorError, match="can be changed by everybody"):
        make(state=str(theirs)).prepare()
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match=r"oci\.state: containers cannot be kept"):
        make(state=str(tmp_path / "file")).prepare()


def test_a_root_that_is_gone_is_made_again(make: Make, plain_shell: str) -> None:
    sandbox = make()
    sandbox.prepare()
    assert sandbox.plan is not None
    shutil.rmtree(sandbox.plan.root)
    sandbox.prepare()
    assert sandbox.run(make_job("echo hi", shell=plain_shell), lambda *_: None, threading.Event()).run.stdout == "hi\n"


def test_jobs_are_below_the_limits_of_the_executors_own_group(own: OciSandbox) -> None:
    container = own.on_trial()
    try:
        text = Path(f"/proc/{container.transport.pid}/cgroup").read_text()
    finally:
        container.close()
    own_lines = dict(line.split(":")[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    for line in text.splitlines():
        _, controllers, path = line.split(":")
        if controllers in ("memory", "pids", ""):
            above = own_lines[controllers].removesuffix(f"/{cgroups.LEAF}").rstrip("/")
            assert (controllers == "" and not cgroups.delegable()) or os.path.dirname(path).rstrip("/") == above


def test_the_doctor_finds_it_fit_and_says_what_is_not(
    make: Make, runtime: Runtime, nix_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make()._settings
    found = {finding.what: finding for finding in doctor.examine(settings, runtime)}
    assert {level for finding in found.values() if (level := finding.level) is Level.REFUSED} == set()
    assert "below this process's own group" in found["limits of memory and processes"].detail
    assert found["a job on trial"].detail.startswith("single-use containers start with /")
    assert "is ended at its limit" in found["a job that takes too much memory"].detail
    assert found["programs that start as root in containers"].level is Level.FINE
    (unknown,) = [finding for finding in doctor.examine(settings, None) if finding.level is Level.UNKNOWN]
    assert "no builder has provided a runtime" in unknown.detail
    monkeypatch.setattr(host, "RUNTIMES", ("none",))
    (refused,) = [finding for finding in doctor.examine(settings, runtime) if finding.level is Level.REFUSED]
    assert "install crun or runc" in str(refused)
    monkeypatch.setattr(cgroups, "trees", lambda _: {})
    monkeypatch.setattr(cgroups, "unified", lambda *_: {})
    (refused,) = doctor.examine(settings, runtime)
    assert "Delegate=yes" in str(refused)


def test_the_version_of_a_runtime_is_its_own_word(tmp_path: Path) -> None:
    for words, found in (
        ("runc version 1.1.12\\ncommit: x", ("runc", "1.1.12")),
        ("crun version 1.8.1\\ncommit: x", ("crun", "1.8.1")),
        ("youki 0.3", ("runtime", "")),
    ):
        script = tmp_path / "runtime"
        script.write_text(f"#!/bin/sh\nprintf '{words}'\n")
        script.chmod(0o755)
        assert host.version(str(script)) == found


# Not compared: what only Docker mounts (a file in /etc, the socket's directory) or makes, a link of one runtime's, and
# how many processes the user may have: that comes from the unit of the engine. A job has its control group's limit.
FINDS = r"""
find / -path /proc -prune -o -path /nix/store -prune -o -path /job -prune -o -printf '%M %U %G %p %l\n' 2>&1 |
    grep -Ev ' (/dev/core|/.dockerenv) ' | sort
df --output=target,itotal,size /job /tmp /dev/shm; grep -E '^(Cap|Seccomp|NoNew|Groups)' /proc/self/status
cut -d ' ' -f 5 /proc/self/mountinfo | grep -Ev '^(/nix/store/.*|/etc/hostname|/spoold/line)$' | sort
env | sort; ulimit -a | grep -v '(-u)'; hostname; umask; ls /proc | grep -v '^[0-9]' | sort
"""


@pytest.mark.parametrize("mode", ["recycled"], indirect=True)
def test_a_job_finds_the_same_as_in_dockers_containers(
    docker_host: str, runtime: Runtime, tmp_path: Path, plain_shell: str, mode: Mode
) -> None:
    found = []
    for where in (docker_host, engines.OCI):
        made = made_sandbox(settings_for(where, str(tmp_path / where.rpartition("/")[2]), mode=mode), runtime)
        made.prepare()
        job = make_job(FINDS, shell=plain_shell, limits=replace(RUN, stdout=MIB))
        phase = made.run(job, lambda *_: None, threading.Event()).run
        made.close()
        assert phase.outcome is Outcome.OK, phase
        found.append(phase.stdout.splitlines())
    differences = "\n".join(difflib.unified_diff(found[0], found[1], n=0, lineterm=""))
    assert differences == "", f"\n{differences}"
