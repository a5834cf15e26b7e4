"""A job learns from /proc and /sys nothing about the host and other jobs, except the things named here."""

from __future__ import annotations

import ast
import concurrent.futures
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from spoold.model.limits import MIB, PhaseLimits
from spoold.model.response import Outcome
from spoold.nix.build import NixBuilder
from spoold.sandbox.facts import HIDDEN_DIRECTORIES, HIDDEN_FILES
from tests.sandbox.conftest import RUN, AnySandbox, Mode, make_job

pytestmark = pytest.mark.docker

Ask = Callable[..., Any]
PATIENT = replace(RUN, time=300, cpu_time=300)

# Programs need these. Some memory and time of the host are no secret, because sysinfo(2) and clocks show them too.
NAMED = {
    "/proc/meminfo",
    "/proc/uptime",
    "/proc/cpuinfo",
    "/proc/sys/kernel/random/uuid",
    "/proc/sys/kernel/ns_last_pid",
}
# A process's own files cannot be covered. These show the whole host's network. The other ones show only the job's own.
OF_THE_NETWORK = {
    f"/proc/self/net/{name}" for name in ("netlink", "protocols", "sockstat", "softnet_stat", "stat/rt_cache")
}
TALK = """
import socket
kept = []
for number in range(200):
    kept.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    kept[-1].connect(("127.1.2.%d" % (number + 1), 9))
    kept[-1].send(bytes(1000))
listening = socket.create_server(("127.0.0.1", 0))
kept += [socket.create_connection(listening.getsockname()) for _ in range(20)]
for each in kept[-20:]:
    each.send(bytes(10000))
print(1)
"""

LOOK = """
import hashlib, os
seen = {}
for root in ("/proc", "/sys", "/proc/self/net"):
    for directory, inner, names in os.walk(root):
        if directory == "/proc":
            inner[:] = [name for name in inner if not name.isdigit() and name not in ("self", "thread-self")]
        for path in (os.path.join(directory, name) for name in names):
            try:
                file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
                seen[path] = hashlib.sha256(os.read(file, 1 << 20)).hexdigest()
                os.close(file)
            except OSError:
                pass
print(seen)
"""

WRITE = """
import os
files = ["/proc/" + name for name in ("cmdline", "loadavg", "stat", "vmstat", "cgroups")]
files += [os.path.join(directory, name) for directory, _, names in os.walk("/sys") for name in names]
opened = []
for path in files:
    for flags in (os.O_WRONLY, os.O_WRONLY | os.O_CREAT):
        try: os.write(os.open(path, flags), b"x")
        except OSError: pass
        else: opened += [path] if open(path).read() else []
for path in ("/sys/new", "/sys/fs/cgroup/new", "/proc/fs/new"):
    try: os.mkdir(path); opened.append(path)
    except OSError: pass
print(opened)
"""

PROGRAMS = """
import multiprocessing, os, time
cpus = [line for line in open("/proc/stat") if line.startswith("cpu") and line[3].isdigit()]
print({
    "cpus": [os.cpu_count(), multiprocessing.cpu_count(), os.sysconf("SC_NPROCESSORS_CONF"), len(cpus)],
    "load": len(os.getloadavg()), "words": open("/proc/loadavg").read().split(),
    "started": next(int(line.split()[1]) for line in open("/proc/stat") if line.startswith("btime")),
    "online": open("/sys/devices/system/cpu/online").read().strip(),
    "pages": os.sysconf("SC_PHYS_PAGES"), "version": open("/proc/version").read().split()[0],
    "idle": {word for line in open("/proc/vmstat") for word in line.split()[1:]},
})
"""

LIMIT = """
import glob
names = sorted(glob.glob("/sys/fs/cgroup/**/*", recursive=True))
print({name: open(name).read().strip() for name in names if not name.endswith("/memory")})
"""


@pytest.fixture
def ask(sandbox: AnySandbox, nix_builder: NixBuilder, python_shell: str) -> Ask:
    """Return a function that runs a Python program in a view of its closure, and returns the value it prints."""

    def _ask(program: str, limits: PhaseLimits = PATIENT) -> Any:
        files = {"main.py": program.encode()}
        job = make_job("exec python3 main.py", shell=python_shell, files=files, limits=limits)
        seeing = replace(job, closure=nix_builder.store.closure([python_shell]))
        phase = sandbox.run(seeing, lambda *_: None, threading.Event()).run
        assert phase.outcome is Outcome.OK, phase
        return ast.literal_eval(phase.stdout)

    return _ask


def test_two_jobs_read_the_same_of_the_kernel(ask: Ask) -> None:
    """The next job could read there what an earlier job or the host has changed."""
    limits = replace(PATIENT, stdout=4 * MIB)
    first = ask(LOOK, limits=limits)
    ask("open('/tmp/x', 'wb').write(bytes(40 << 20)); print(1)", limits=replace(PATIENT, file_size=64 * MIB))
    ask(TALK, limits=replace(PATIENT, open_files=512))
    second = ask(LOOK, limits=limits)
    assert len(first) > 100
    assert OF_THE_NETWORK & first.keys()
    assert {path for path in first if first[path] != second.get(path)} <= NAMED | OF_THE_NETWORK


def test_what_no_program_needs_is_empty(ask: Ask) -> None:
    program = f"""
import os
def size(path):
    try: return len(os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1))
    except FileNotFoundError: return 0
    except PermissionError: return 1
print({{path: size(path) for path in {[*HIDDEN_FILES, *HIDDEN_DIRECTORIES]!r}}})
"""
    assert {path for path, size in ask(program).items() if size} == set()
    with open("/proc/cmdline", "rb") as file:
        assert file.read()  # the host's own is not empty
    assert "/proc/cmdline" in HIDDEN_FILES


def test_what_stands_there_instead_cannot_be_changed(ask: Ask) -> None:
    assert ask(WRITE) == []


def test_programs_find_what_they_need(ask: Ask) -> None:
    found = ask(PROGRAMS)
    assert set(found["cpus"]) == {os.cpu_count()}
    assert (found["load"], found["words"], found["version"]) == (3, ["0.00", "0.00", "0.00", "1/1", "1"], "Linux")
    assert found["online"].startswith("0")
    assert found["started"] > 0
    assert found["pages"] > 0
    assert found["idle"] == {"0"}


def test_it_takes_no_time_of_the_jobs(sandbox: AnySandbox, mode: Mode) -> None:
    assert sandbox._pool is not None
    while not sandbox._pool._waiting:
        threading.Event().wait(0.05)
    mounts = Path(f"/proc/{sandbox._pool._waiting[0].transport.pid}/mountinfo").read_text()
    assert sandbox.plan is not None
    assert (" /proc/loadavg " in mounts) is not sandbox.plan.cells  # with cells, the cell has this mount


def test_a_job_sees_its_memory_limit_and_no_counter(ask: Ask) -> None:
    for memory in (200 * MIB, 300 * MIB):
        files = ask(LIMIT, limits=replace(PATIENT, memory=memory))
        least = min(int(value) for value in files.values() if value.isdigit())
        assert memory <= least < memory + 64 * MIB
        assert {name.rpartition("/")[2] for name in files} <= {
            *("cgroup.controllers", "memory.max", "memory.high"),
            *("memory.limit_in_bytes", "memory.soft_limit_in_bytes"),
        }


HOLD = """
import ctypes, fcntl, os, sys, time
path = os.path.realpath(sys.executable)
libc = ctypes.CDLL(None)
watch = libc.inotify_init1(os.O_NONBLOCK)
file = open(path, "rb")
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
for watched in (path, os.path.dirname(path), os.path.dirname(os.__file__)):
    assert libc.inotify_add_watch(watch, watched.encode(), 0xFFF) >= 0
began, heard = time.monotonic(), b""
while time.monotonic() < began + SECONDS:
    try: heard += os.read(watch, 65536)
    except BlockingIOError: time.sleep(0.01)
print({"began": began, "ended": time.monotonic(), "heard": heard})
"""

TRY = """
import fcntl, os, struct, sys, time
path = os.path.realpath(sys.executable)
file = open(path, "rb")
asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
free = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, asked))[0] == fcntl.F_UNLCK
try: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError: free = False
print({"at": time.monotonic(), "free": free})
"""


def was_free(held: dict[str, Any], tried: list[dict[str, Any]]) -> bool:
    """Tell whether another job tried while the lock was held. All tries must have found it free."""
    meanwhile = [each["free"] for each in tried if held["began"] < each["at"] < held["ended"]]
    assert all(meanwhile)
    return bool(meanwhile)


def test_what_one_job_locks_and_watches_in_the_store_is_nothing_to_another(ask: Ask) -> None:
    """The job holds the file longer and longer until another job has run meanwhile. A slow machine takes long."""
    for seconds in (2, 4, 8, 16, 32, 64, 128):
        with concurrent.futures.ThreadPoolExecutor(1) as other:
            holding = other.submit(ask, HOLD.replace("SECONDS", str(seconds)))
            tried = [ask(TRY)]
            while not holding.done():
                tried.append(ask(TRY))
            held = holding.result()
        assert held["heard"] == b""
        if was_free(held, tried):
            return
    pytest.fail("no job ran while the other held the file")
