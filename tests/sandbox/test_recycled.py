"""Containers that serve many jobs: the next job finds nothing of the one before. And when a container is replaced."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

import docker
import pytest
from msgspec.structs import replace

from spoold.engines.docker import walls
from spoold.engines.docker.sandbox import DockerSandbox
from spoold.model.errors import ClientError, OperatorError
from spoold.model.job import Runtime
from spoold.model.limits import MIB, RUN_DEFAULT, Limits
from spoold.model.response import Outcome
from spoold.sandbox import RunCancelledError, runner
from tests.sandbox.cells import Make, container, go, make, waiting
from tests.sandbox.conftest import RUN, make_job, settings_for
from tests.waiting import until

__all__ = ["make"]  # a fixture
pytestmark = pytest.mark.docker

SPACES = ("user", "pid", "mnt", "ipc", "uts", "net")


def files_in_memory(pid: int) -> int:
    """Return the bytes of files in memory in the control group of a process."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            text = Path(f"/sys/fs/cgroup/{controllers}/{path}/memory.stat").read_text()
            return int(dict(pair.split() for pair in text.splitlines())["shmem"])
    raise AssertionError("the process is in no control group")


LEAVE = """
import ctypes, os, signal, socket, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
for name in ("/job/left", "/tmp/left", "/dev/shm/left", "/dev/mqueue/file"): open(name, "w")
assert libc.shmget(4711, 4096, 0o1666) >= 0 and libc.semget(4711, 1, 0o1666) >= 0 and libc.msgget(4711, 0o1666) >= 0
assert libc.syscall(240, b"left", os.O_CREAT | os.O_RDWR, 0o666, None) >= 0, ctypes.get_errno()
if os.fork() == 0:
    os.setsid()
    for number in range(1, 65):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    s = socket.socket(socket.AF_UNIX); s.bind("\\0left"); s.listen()
    t = socket.socket(); t.bind(("127.0.0.1", 4711)); t.listen()
    open("/job/ready", "w")
    for descriptor in (0, 1, 2): os.close(descriptor)
    while True: time.sleep(1)
while not os.path.exists("/job/ready"): time.sleep(0.001)
print("left")
"""

LOOK = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
print(os.listdir("/job"), os.listdir("/tmp"), os.listdir("/dev/shm"), os.listdir("/dev/mqueue"))
print(libc.shmget(4711, 4096, 0), libc.semget(4711, 1, 0), libc.msgget(4711, 0))
print(len([name for name in os.listdir("/proc") if name.isdigit()]))
for family, address in ((socket.AF_UNIX, "\\0left"), (socket.AF_INET, ("127.0.0.1", 4711))):
    s = socket.socket(family)
    print(s.connect_ex(address) != 0)
"""


@pytest.mark.engines
def test_nothing_of_a_job_is_there_for_the_next(make: Make, python_shell: str) -> None:
    sandbox = make()
    used = container(sandbox)
    jobs = [
        make_job("exec python3 $1", shell=python_shell, files={"a.py": text.encode()}, args=("a.py",))
        for text in (LEAVE, LOOK)
    ]
    assert go(sandbox, jobs[0]).run.stdout == "left\n"
    assert container(sandbox) == used
    phase = go(sandbox, jobs[1]).run
    assert phase.stderr == ""
    files, ipc, processes, *sockets = phase.stdout.splitlines()
    assert files in {"['a.py', 'run.sh'] [] [] []", "['run.sh', 'a.py'] [] [] []"}
    assert (ipc, processes, sockets) == ("-1 -1 -1", "2", ["True", "True"])
    assert container(sandbox) == used


@pytest.mark.engines
def test_every_job_has_namespaces_of_its_own(make: Make, plain_shell: str) -> None:
    sandbox = make()
    script = f"for n in {' '.join(SPACES)}; do readlink /proc/self/ns/$n; done"
    container(sandbox)
    first, second = (go(sandbox, make_job(script, shell=plain_shell)).run.stdout.split() for _ in range(2))
    assert sandbox._pool is not None
    supervisor = sandbox._pool._waiting[0].transport.pid
    spaces = {str(Path(f"/proc/{supervisor}/ns", name).readlink()) for name in SPACES}
    assert [space.partition(":")[0] for space in (*first, *second)] == [*SPACES, *SPACES]
    assert not spaces & {*first, *second}


def test_a_container_is_replaced_after_so_many_jobs(make: Make, plain_shell: str) -> None:
    sandbox = make(replace_after=3)
    seen = []
    for _ in range(6):
        seen.append(container(sandbox))
        assert go(sandbox, make_job("echo hi", shell=plain_shell)).run.stdout == "hi\n"
    assert seen[0] == seen[1] == seen[2] != seen[3] == seen[4] == seen[5]


@pytest.mark.parametrize(("strict", "same"), [(False, True), (True, False)])
def test_a_container_of_another_users(make: Make, plain_shell: str, *, strict: bool, same: bool) -> None:
    sandbox = make(replace_on_owner_change=strict)
    first = container(sandbox)
    for _ in range(2):
        go(sandbox, replace(make_job("true", shell=plain_shell), owner=1001))
        assert container(sandbox) == first
    assert go(sandbox, replace(make_job("echo hi", shell=plain_shell), owner=1002)).run.stdout == "hi\n"
    assert (container(sandbox) == first) is same


@pytest.mark.engines
def test_a_container_whose_memory_ran_out_is_replaced(make: Make, plain_shell: str) -> None:
    sandbox = make()
    first = container(sandbox)
    phase = go(sandbox, make_job("x=x; while :; do x=$x$x; done", shell=plain_shell)).run
    assert phase.outcome is Outcome.MEMORY_LIMIT
    assert container(sandbox) != first


def test_a_container_whose_job_was_cancelled_is_replaced(make: Make, plain_shell: str) -> None:
    sandbox = make()
    first = container(sandbox)
    cancelled = threading.Event()
    job = make_job("sleep 60", compile_sh="true", shell=plain_shell)
    with pytest.raises(RunCancelledError):
        sandbox.run(job, lambda *_: cancelled.set(), cancelled)
    assert container(sandbox) != first


def test_a_container_whose_job_was_refused_is_replaced(make: Make, plain_shell: str) -> None:
    sandbox = make(limits=Limits(work_inodes=100))
    first = container(sandbox)
    with pytest.raises(ClientError):
        go(sandbox, make_job("true", shell=plain_shell, files={f"d{n}/f": b"" for n in range(90)}))
    assert container(sandbox) != first


@pytest.mark.parametrize(
    ("script", "again"),
    [
        ("for ((n = 0; n < 1000; n++)); do : >$n; done", True),
        ("for ((n = 0; n < 40000; n++)); do : >$n; done", False),
        ("head -c 100M /dev/zero >/dev/shm/x", True),
        ("head -c 600M /dev/zero >/dev/shm/x", False),
    ],
    ids=["few", "many", "light", "heavy"],
)
def test_no_job_waits_for_the_files_of_another_to_go(make: Make, plain_shell: str, script: str, *, again: bool) -> None:
    """The kernel takes a second to remove some hundred thousand files."""
    sandbox = make()
    first = container(sandbox)
    limits = replace(RUN_DEFAULT, memory=1024 * MIB, file_size=1024 * MIB, time=60, cpu_time=60)
    assert go(sandbox, make_job(script, shell=plain_shell, limits=limits)).run.outcome is Outcome.OK
    assert (container(sandbox) == first) is again


def test_a_container_that_dies_between_jobs_is_replaced(make: Make, docker_host: str, plain_shell: str) -> None:
    sandbox = make()
    assert go(sandbox, make_job("echo hi", shell=plain_shell)).run.stdout == "hi\n"
    first = container(sandbox)
    api = docker.APIClient(base_url=docker_host)
    api.kill(first)
    api.close()
    while container(sandbox) == first:
        pass
    assert go(sandbox, make_job("echo hi", shell=plain_shell)).run.stdout == "hi\n"
    assert container(sandbox) != first


def test_limits_are_each_jobs_own(make: Make, plain_shell: str) -> None:
    sandbox = make()
    first = container(sandbox)
    fill = "head -c 40M /dev/zero >/tmp/x; cat /tmp/x | wc -c"
    for _ in range(8):  # 320 MiB in all
        phase = go(sandbox, make_job(fill, shell=plain_shell, limits=replace(RUN, file_size=64 * MIB))).run
        assert phase.stdout.split() == [str(40 * MIB)]
        assert isinstance(phase.memory, int)
        assert 40 * MIB <= phase.memory < 60 * MIB
    small = go(sandbox, make_job("echo hi", shell=plain_shell)).run
    assert isinstance(small.memory, int)
    assert small.memory < 8 * MIB  # an earlier job's memory doesn't count
    assert container(sandbox) == first


def test_the_times_of_devices_tell_the_next_job_nothing(make: Make, plain_shell: str) -> None:
    sandbox = make()
    script = (
        "#!/bin/bash\ntouch /dev/null; echo x >/dev/zero; ls /dev >/dev/null; stat -c %X:%Y /dev/null /dev/zero /dev"
    )
    first, second = (go(sandbox, make_job(f"sleep 1.1; {script}", shell=plain_shell)).run.stdout for _ in range(2))
    assert len(first.split()) == 3
    assert first == second


STRAY = """
import os, socket
names = [os.memfd_create(str(n)) for n in range(7)]
for name in names: os.write(name, bytes(14 << 20))
one, other = socket.socketpair()
socket.send_fds(one, [b"x"], [one.fileno(), other.fileno(), *names])
socket.send_fds(other, [b"x"], [one.fileno(), other.fileno()])
"""


def test_what_a_job_left_in_a_cycle_of_sockets_is_not_the_next_ones_memory(
    make: Make, plain_shell: str, python_shell: str
) -> None:
    sandbox = make()
    files = {"a.py": STRAY.encode()}
    held: list[int] = []
    for count in range(3):
        pid = waiting(sandbox).transport.pid
        assert go(sandbox, make_job("exec python3 a.py", shell=python_shell, files=files)).run.outcome is Outcome.OK

        def look(name: str, _: object, pid: int = pid) -> None:
            if name == "compile":  # the next job has just begun
                try:
                    held.append(files_in_memory(pid))
                # the container was replaced, because the memory was not free in time
                except (FileNotFoundError, ProcessLookupError):
                    until(lambda: not os.path.exists(f"/proc/{pid}"))
                    held.append(0)

        sandbox.run(make_job("true", compile_sh="true", shell=plain_shell), look, threading.Event())
        assert len(held) == count + 1
    assert max(held) < 16 * MIB


def test_memory_does_not_grow_with_jobs(make: Make, docker_host: str, plain_shell: str) -> None:
    sandbox = make()
    api = docker.APIClient(base_url=docker_host)
    used = []
    for _ in range(3):
        for _ in range(20):
            go(sandbox, make_job("head -c 1M /dev/zero >/tmp/x", shell=plain_shell))
        stats = api.stats(container(sandbox), stream=False, one_shot=True)["memory_stats"]["stats"]
        used.append(stats.get("total_rss", stats.get("anon", 0)))
    api.close()
    assert 0 < used[2] < used[0] + 2 * MIB


def test_a_host_without_user_namespaces(
    docker_host: str, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = walls.seccomp(recycled=False)  # allows no namespaces
    monkeypatch.setattr(walls, "seccomp", lambda **_: narrow)
    settings = settings_for(docker_host, str(tmp_path), mode="recycled")
    with pytest.raises(
        OperatorError, match=r'"recycled" is not possible here.*user\.max_user_namespaces.*not permitted'
    ):
        DockerSandbox(settings, runtime).prepare()


PROC = """
for process in ("1", "self"):
    print([line.split()[1].lstrip("0") for line in open(f"/proc/{process}/status") if line.startswith(("CapPrm", "CapBnd"))])
"""  # noqa: E501


def test_the_cell_keeps_no_more_rights_than_it_needs(make: Make, python_shell: str) -> None:
    phase = go(make(), make_job("exec python3 a.py", shell=python_shell, files={"a.py": PROC.encode()})).run
    assert phase.stderr == ""
    cell, job = phase.stdout.splitlines()
    assert cell == "['e0', '']"  # KILL, SETGID, SETUID; the bounding set is empty, so it can gain no others
    assert job == "['', '']"


def test_a_container_that_is_not_ready_again_in_time_is_replaced(
    make: Make, plain_shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = make()
    go(sandbox, make_job("true", shell=plain_shell))
    first = container(sandbox)
    assert sandbox._pool is not None
    slow = sandbox._pool._waiting[0]
    while slow.due:
        with sandbox._pool._change:  # because the pool's threads look too
            assert slow.alive()
    (mother,) = map(int, Path(f"/proc/{slow.transport.pid}/task/{slow.transport.pid}/children").read_text().split())
    os.kill(mother, signal.SIGSTOP)  # it makes no new cell after this job
    try:
        monkeypatch.setattr(runner, "CLEANUP_TIMEOUT", 0.3)
        outputs = [go(sandbox, make_job("echo hi", shell=plain_shell)).run.stdout for _ in range(2)]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(mother, signal.SIGCONT)
    assert outputs == ["hi\n", "hi\n"]
    assert container(sandbox) != first
