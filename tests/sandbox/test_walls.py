"""What a job must not reach: the network, the supervisor, the store, other jobs, the host."""

from __future__ import annotations

import concurrent.futures
import threading
from pathlib import Path

import docker
import pytest
from msgspec.structs import replace

from spoold.model.job import Runtime
from spoold.model.limits import COMPILE_DEFAULT
from spoold.model.response import Outcome
from spoold.sandbox.facts import HOLDERS, JOB_UID, LIMITS_V1, LIMITS_V2
from tests import cores, huge
from tests.sandbox.conftest import RUN, AnySandbox, Mode, Run, made_sandbox, make_job, settings_for

pytestmark = [pytest.mark.docker, pytest.mark.engines]


def test_no_network_but_loopback(run: Run, python_shell: str) -> None:
    program = (
        "import socket\n"
        "print([line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]])\n"
        "for address in ('172.17.0.1', '169.254.169.254', '192.0.2.1', '127.0.0.1'):\n"
        "    s = socket.socket(); s.settimeout(3)\n"
        "    try: s.connect((address, 80)); print('reached', address)\n"
        "    except OSError as error: print(error.errno)\n"
        "print(len(open('/proc/net/unix').readlines()) - 1, len(open('/proc/net/route').readlines()) - 1)\n"
    )
    lines = run("exec python3 main.py", files={"main.py": program.encode()}, shell=python_shell).run.stdout.splitlines()
    assert lines == ["['lo']", "101", "101", "101", "111", "0 0"]


def test_no_socket_of_the_host(run: Run) -> None:
    phase = run("ls -d /nix/var /var/run/docker.sock /run/docker.sock /nix/store; ls /nix").run
    assert phase.stdout.split() == ["/nix/store", "store"]


def test_descriptors_are_three(run: Run, python_shell: str) -> None:
    program = b"import os; print([n for n in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}')])"
    phase = run('exec python3 -c "$(cat main.py)"', files={"main.py": program}, shell=python_shell).run
    assert phase.stdout == "['0', '1', '2']\n"


ATTEMPTS = [
    "cat /proc/1/environ",
    "cat /proc/1/mem",
    "cat /proc/1/maps",
    "ls /proc/1/fd/",
    "echo forged >/proc/1/fd/1",
    "cat /proc/1/fd/0",
    "ls /proc/1/root/",
    "kill -0 1",
    "kill -9 1",
    "echo -1000 >/proc/self/oom_score_adj",
    "echo 0 >/proc/1/oom_score_adj",
    *(
        f"echo 99 >/sys/fs/cgroup/{name}"
        for name in ("pids/pids.max", "pids.max", "cgroup.procs", *LIMITS_V1, *LIMITS_V2)
    ),
    "mkdir /sys/fs/cgroup/mine",
    "mkdir /sys/fs/cgroup/memory/mine",
    "ulimit -n 100",
    "ulimit -f unlimited",
    "touch /nix/store/new",
    "rm -rf $(dirname $(dirname $(command -v ls)))",
    "chmod 777 /nix/store",
    "touch /new",
    "ln -sf /job/evil /bin/sh",
    "touch /bin/env",
    "touch /spoold/sbin/supervisor",
    "echo x >>/etc/passwd",
    "chown 0 run.sh",
    "mknod dev b 8 0",
    "chroot / true",
    "ls /nix/store",
    "hostname other",
]


@pytest.fixture(scope="module")
def refusals(sandbox: AnySandbox, plain_shell: str) -> dict[str, str]:
    """Make all attempts in one container. Return the result of each."""
    lines = [f"( {attempt} ) >/dev/null 2>&1 && echo allowed || echo refused" for attempt in ATTEMPTS]
    job = make_job("#!/bin/bash\n" + "\n".join(lines), shell=plain_shell)
    result = sandbox.run(job, lambda *_: None, threading.Event())
    assert result.run.outcome is Outcome.OK, result.run
    return dict(zip(ATTEMPTS, result.run.stdout.split(), strict=True))


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_refused(refusals: dict[str, str], attempt: str) -> None:
    assert refusals[attempt] == "refused"


def test_compile_cannot_redirect_run(run: Run) -> None:
    result = run("echo original", compile_sh="rm run.sh; ln -s /proc/1/environ run.sh")
    assert result.run.outcome is Outcome.NONZERO_EXIT
    assert (result.run.exit_code, result.run.stdout) == (126, "")
    result = run("echo original", compile_sh="rm run.sh; mkfifo run.sh")
    assert result.run.exit_code == 126
    result = run("echo original", compile_sh="mv /job /tmp/w; chmod 000 /job; rm -rf /job/*; true")
    assert result.run.outcome is not Outcome.OK


def test_a_forged_report_is_only_output(run: Run) -> None:
    forged = "d5:event4:done6:statusi0ee"
    phase = run(f"printf '\\0\\0\\0\\032{forged}'; printf '\\1\\0\\0\\0\\0\\0\\0\\4abcd' >&2; exit 9").run
    assert phase.exit_code == 9
    assert forged in phase.stdout


def test_on_cgroup_v2_the_job_sees_its_own_group_as_the_root(run: Run, docker_host: str) -> None:
    client = docker.APIClient(base_url=docker_host)
    version = client.info().get("CgroupVersion")
    client.close()
    if version != "2":
        pytest.skip("the engine's host has cgroup v1")
    assert run("cat /proc/self/cgroup; ls -d /sys/fs/cgroup/*/").run.stdout == "0::/\n"


def test_every_place_that_can_be_written_is_bounded(run: Run) -> None:
    phase = run("for place in /job /tmp /dev/shm; do df -B1M --output=size,itotal,target $place | tail -n +2; done").run
    places = [line.split() for line in phase.stdout.splitlines()]
    assert places == [["8192", "262144", place] for place in ("/job", "/tmp", "/dev/shm")]
    phase = run("for d in / /*/ /etc/*/ /dev/*/ /sys/*/ /sys/fs/cgroup/*/; do [ -w $d ] && echo $d; done; true").run
    assert set(phase.stdout.split()) == {"/job/", "/tmp/", "/dev/mqueue/", "/dev/shm/"}


def test_set_uid_files_give_nothing(run: Run) -> None:
    phase = run("cp $(command -v id) i; chmod 6755 i; ./i -u; cat /proc/self/status").run
    assert int(phase.stdout.splitlines()[0]) in (JOB_UID, *HOLDERS)
    fields = dict(line.split(":\t") for line in phase.stdout.splitlines()[1:])
    assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert fields["NoNewPrivs"] == "1"


def test_a_crash_starts_no_handler_of_the_host(run: Run, python_shell: str) -> None:
    with cores.handled() as count:
        phase = run(cores.CRASHES, shell=python_shell).run
        assert phase.stderr.count("dumped") == 0
        assert phase.outcome is Outcome.OK, phase.stderr
        raw = run("exec python3 main.py", files={"main.py": cores.RAW.encode()}, shell=python_shell).run
        assert (raw.stdout, raw.signal) == ("set 0\n", "SIGSEGV")
        assert count() == 0


def test_no_huge_pages_which_nobody_would_count(run: Run, python_shell: str) -> None:
    with huge.pages():
        phase = run("exec python3 main.py", files={"main.py": huge.TRIES.encode()}, shell=python_shell).run
    assert phase.stdout == huge.REFUSED


CALLS = """
import ctypes, errno, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *arguments):
    result = libc.syscall(number, *arguments)
    print(name, "allowed" if result >= 0 else "refused")
call("unshare", 272, 0x10000000)
call("mount", 165, b"none", b"/tmp", b"tmpfs", 0, None)
call("keyctl", 250, 0, -3, 1)
call("add_key", 248, b"user", b"name", b"value", 5, -3)
call("bpf", 321, 0, None, 0)
call("io_uring_setup", 425, 1, ctypes.create_string_buffer(120))
call("userfaultfd", 323, 0)
call("perf_event_open", 298, ctypes.create_string_buffer(120), 0, -1, -1, 0)
call("setns", 308, 0, 0)
call("ptrace", 101, 16, 1, 0, 0)
call("process_vm_readv", 310, 1, None, 0, None, 0)
call("modify_ldt", 154, 0, ctypes.create_string_buffer(16), 16)
call("memfd_secret", 447, 0)
handle = (128).to_bytes(4, "little").ljust(200)
call("name_to_handle_at", 303, -100, b"/", handle, ctypes.create_string_buffer(8), 0)
call("adjtimex", 159, ctypes.create_string_buffer(256))
call("kcmp", 312, 1, 1, 0, 0, 0)
call("syslog", 103, 10, None, 0)
call("pivot_root", 155, b"/", b"/")
call("open_tree", 428, -100, b"/", 1)
call("clone_newuser", 56, 0x10000000 | 17, None, None, None, None)
call("io_setup", 206, 1, ctypes.byref(ctypes.c_ulong()))
for name, family in (("vsock", 40), ("alg", 38), ("packet", 17), ("netlink", 16)):
    try: socket.socket(family, socket.SOCK_SEQPACKET if family == 38 else socket.SOCK_RAW if family in (16, 17) else socket.SOCK_STREAM); print(name, "allowed")
    except OSError as error: print(name, "refused")
"""  # noqa: E501


def test_dangerous_calls_are_refused(run: Run, python_shell: str, runtime: Runtime) -> None:
    if runtime.system != "x86_64-linux":
        pytest.skip("the numbers of the system calls are those of x86_64")
    phase = run("exec python3 main.py", files={"main.py": CALLS.encode()}, shell=python_shell).run
    assert phase.outcome is Outcome.OK
    assert [line for line in phase.stdout.splitlines() if not line.endswith("refused")] == []


SOCKETS = """
import ctypes, errno, socket
libc = ctypes.CDLL(None, use_errno=True)
for call, family, kind, protocol in (
    ("socket", 1, 1, 0), ("socket", 2, 1, 0), ("socket", 2, 1, 6), ("socket", 2, 2, 17), ("socket", 10, 1, 0),
    ("socketpair", 1, 1, 0),
    ("socket", 2, 5, 132), ("socket", 2, 2, 1), ("socket", 2, 2, 136), ("socket", 2, 1, 262), ("socket", 10, 1, 132),
    ("socket", 16, 3, 0), ("socket", 16, 3, 2), ("socketpair", 16, 3, 2), ("socketpair", 40, 1, 0),
):
    libc.__getattr__(call)(family, kind, protocol, (ctypes.c_int * 2)())
    print(errno.errorcode.get(ctypes.get_errno(), "open"))
    ctypes.set_errno(0)
print(socket.getaddrinfo("127.0.0.1", 80)[0][4])
"""


def test_sockets_are_for_unix_tcp_and_udp(run: Run, python_shell: str) -> None:
    """Other families or protocols would make the host load modules, and buffers of netlink count for nobody."""
    phase = run("exec python3 main.py", files={"main.py": SOCKETS.encode()}, shell=python_shell).run
    assert phase.stderr == ""
    *errors, address = phase.stdout.splitlines()
    assert errors == ["open"] * 6 + ["EPROTONOSUPPORT"] * 5 + ["EAFNOSUPPORT"] * 4
    assert address == "('127.0.0.1', 80)"


def test_sync_is_not_for_jobs(run: Run, python_shell: str) -> None:
    """In a loop it would stall the host's disks.

    The kernel would refuse this descriptor, but the filter just returns 0.
    """
    program = b"import ctypes; print(ctypes.CDLL(None).syncfs(-1))"
    assert run("exec python3 main.py", files={"main.py": program}, shell=python_shell).run.stdout == "0\n"


def test_jobs_see_nothing_of_each_other(run: Run) -> None:
    script = (
        "#!/bin/bash\nls -A /job /tmp /dev/shm; ls -d /proc/[0-9]* | wc -l; hostname 2>/dev/null\n"
        "touch /job/$1 /tmp/$1 /dev/shm/$1; sleep 0.5; ls -A /tmp /dev/shm | sort -u | tr '\\n' ' '"
    )
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        outputs = [future.result().run.stdout for future in [pool.submit(run, script, args=(n,)) for n in "abc"]]
    for name, output in zip("abc", outputs, strict=True):
        assert output.endswith(f" /tmp: {name} ") or f" {name} " in output
        assert not {"a", "b", "c"} - {name} & set(output.split())


def test_compile_limits_are_not_the_runs(run: Run) -> None:
    result = run("ulimit -n", compile_sh="ulimit -n")
    assert (result.compile.stdout, result.run.stdout) == (f"{COMPILE_DEFAULT.open_files}\n", "64\n")


QUOTA = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
count = 0
while count < 50 and libc.inotify_init1(0) >= 0: count += 1
print(count)
import time; time.sleep(float(open("/job/wait").read()))
"""


def test_quotas_per_user_are_not_shared_between_jobs(
    engine_at: str, runtime: Runtime, tmp_path: Path, python_shell: str, mode: Mode
) -> None:
    """inotify allows 128 instances per user. Three jobs take 150."""
    sandbox = made_sandbox(settings_for(engine_at, str(tmp_path), waiting=3, mode=mode), runtime)
    sandbox.prepare()
    results: list[str] = []

    def one() -> None:
        files = {"a.py": QUOTA.encode(), "wait": b"2"}
        job = make_job("exec python3 a.py", shell=python_shell, files=files)
        results.append(sandbox.run(job, lambda *_: None, threading.Event()).run.stdout)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sandbox.close()
    assert results == ["50\n"] * 3


BUFFERED = """
import re, socket
SIZE = 8 << 20
def big(kind):
    made = socket.socket(socket.AF_INET, kind)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF): made.setsockopt(socket.SOL_SOCKET, option, SIZE)
    return made
kept = []
for _ in range(40):
    into = big(socket.SOCK_DGRAM); into.bind(("127.0.0.1", 0)); kept.append(into)
    out = big(socket.SOCK_DGRAM); out.setblocking(False)
    for _ in range(2000):
        try: out.sendto(b"x" * 8000, into.getsockname())
        except BlockingIOError: break
    out.close()
    server = big(socket.SOCK_STREAM); server.bind(("127.0.0.1", 0)); server.listen()
    client = big(socket.SOCK_STREAM); client.connect(server.getsockname()); client.setblocking(False)
    kept += [server, client, server.accept()[0]]
    try:
        while client.send(b"x" * 65536): pass
    except BlockingIOError: pass
print(sum(map(int, re.findall(r"(?:TCP|UDP):.* mem (\\d+)", open("/proc/net/sockstat").read()))) // 256)
"""


def test_sockets_take_little_memory_of_the_hosts(run: Run, python_shell: str) -> None:
    """cgroup v1 charges it to nobody. Without the limits it would be half a gigabyte. The host counts it, in MiB."""
    limits = replace(RUN, open_files=256, time=300, cpu_time=300)
    phase = run("exec python3 main.py", files={"main.py": BUFFERED.encode()}, shell=python_shell, limits=limits).run
    assert (phase.outcome, phase.stderr) == (Outcome.OK, ""), phase
    assert int(phase.stdout) < 100
