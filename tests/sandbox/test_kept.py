"""A recycled container keeps its network and its view of the store between jobs. Neither tells a job of another."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from spoold.engines.docker import container as engine
from spoold.engines.docker import walls
from spoold.model.job import Runtime
from spoold.nix.build import NixBuilder
from spoold.sandbox.facts import HOLDERS
from tests.sandbox.cells import Make, container, family, go, make, waiting
from tests.sandbox.conftest import AnySandbox, make_job
from tests.waiting import until

__all__ = ["make"]  # a fixture
pytestmark = pytest.mark.docker


def network_of(sandbox: AnySandbox, shell: str, program: str) -> tuple[str, str]:
    """Return the network namespace of a job, and the job's output."""
    text = f"import os\nprint(os.readlink('/proc/self/ns/net'))\n{program}"
    phase = go(sandbox, make_job("exec python3 a.py", shell=shell, files={"a.py": text.encode()})).run
    assert phase.stderr == ""
    assert isinstance(phase.stdout, str)
    space, _, printed = phase.stdout.partition("\n")
    return space, printed


# Counters of the network, without those that count for the whole host.
COUNTERS = """
import re
for name in ("dev", "netstat", "snmp", "snmp6", "sockstat", "sockstat6", "unix", "tcp", "udp", "route", "if_inet6"):
    if not os.path.exists(f"/proc/net/{name}"): continue
    print(name, re.sub(r"(alloc|mem|orphan) \\d+", "", open(f"/proc/net/{name}").read()))
"""
USES = {
    "an address": "import socket; socket.socket().bind(('127.0.0.1', 0))",
    "a socket alone": "import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
    "in a child": "import socket\nif not os.fork(): socket.socket()\nelse: os.wait()",
    "much": "import socket\na = socket.create_server(('127.0.0.1', 0)); b = socket.create_connection(a.getsockname())\n"
    "b.sendall(bytes(9999)); print(len(a.accept()[0].recv(9999)) > 0)",
    "a pair that there is not": "import ctypes; ctypes.CDLL(None).socketpair(2, 1, 0, (ctypes.c_int * 2)())",
    "again and again": "import socket\nfor _ in range(2000): socket.socket().close()",
    "before its end": "import socket, signal; socket.socket(); os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("use", USES)
def test_a_network_that_a_job_used_is_no_other_jobs(make: Make, python_shell: str, use: str) -> None:
    sandbox = make()
    used = container(sandbox)
    first, counted = network_of(sandbox, python_shell, COUNTERS)
    text = f"import os\n{USES[use]}"
    go(sandbox, make_job("exec python3 a.py", shell=python_shell, files={"a.py": text.encode()}))
    then, counted_then = network_of(sandbox, python_shell, COUNTERS)
    assert (then != first, counted_then) == (True, counted)
    assert container(sandbox) == used


# Stands for a job's socket that was in flight in another socket, and that the kernel may free only after some time.
STAYS = "import socket; s = socket.socket(socket.AF_UNIX); s.bind('\\0left'); print(flush=True); input()"


def test_a_network_in_which_a_socket_is_left_is_no_other_jobs(make: Make, python_shell: str) -> None:
    sandbox = make()
    pid = waiting(sandbox).transport.pid
    (mother,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    command = ["nsenter", f"--net=/proc/{mother}/ns/net", sys.executable, "-c", STAYS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "\n"
        seen = [network_of(sandbox, python_shell, "print(open('/proc/net/unix').read())") for _ in range(2)]
        process.communicate("\n")
    assert ["@left" in text for _, text in seen] == [True, False]
    assert seen[0][0] != seen[1][0]


def test_a_network_that_no_job_asked_for_is_kept(make: Make, python_shell: str) -> None:
    sandbox = make()
    own = "import socket; a, b = socket.socketpair(); s = socket.socket(socket.AF_UNIX); s.bind('\\0x'); s.listen()\n"
    refused = "for kind in (16, 17, 40):\n    try: socket.socket(kind)\n    except OSError: pass\n"
    first, counted = network_of(sandbox, python_shell, COUNTERS)
    network_of(sandbox, python_shell, own + refused)
    assert network_of(sandbox, python_shell, COUNTERS) == (first, counted)


def test_each_job_sees_its_own_entries_whatever_the_ones_before_saw(
    make: Make, runtime: Runtime, plain_shell: str, python_shell: str
) -> None:
    sandbox = make()
    used = container(sandbox)
    seen = {
        name: {os.path.basename(path) for path in (*runtime.closure, *more)}
        for name, more in (("a", [plain_shell]), ("b", [plain_shell, python_shell]), ("c", []))
    }
    for name in "aababbaacccab":
        closure = sorted(f"/nix/store/{entry}" for entry in seen[name])
        job = replace(make_job("cd /nix/store; echo *; ls -A /sys/own", shell=plain_shell), closure=closure)
        assert set(go(sandbox, job).run.stdout.split()) == seen[name]
    assert container(sandbox) == used


def test_what_the_jobs_before_saw_is_nowhere(make: Make, runtime: Runtime, plain_shell: str, python_shell: str) -> None:
    """Earlier views don't show in the kernel's list of mounts either."""
    sandbox = make()
    used = container(sandbox)
    for _ in range(3):
        closure = [*runtime.closure, plain_shell, python_shell]
        go(sandbox, replace(make_job("true", shell=python_shell), closure=closure, owner=1001))
    job = replace(make_job("cat /proc/self/mountinfo", shell=plain_shell), owner=1002)
    for closure in ([*runtime.closure, plain_shell], []):
        mounts = go(sandbox, replace(job, closure=closure)).run.stdout
        assert os.path.basename(python_shell) not in mounts
        assert (os.path.basename(plain_shell) in mounts) is bool(closure)
    assert container(sandbox) == used


def test_a_view_may_have_more_entries_than_an_engine_lets_files_be_open(
    make: Make, runtime: Runtime, nix_builder: NixBuilder, plain_shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def few(*given: Any) -> dict[str, Any]:
        made = walls.configuration(*given)
        made["host_config"]["Ulimits"] = [{"Name": "nofile", "Soft": 16, "Hard": 4096}]
        return made

    monkeypatch.setattr(engine, "configuration", few)
    others = [name for name in sorted(os.listdir(nix_builder.store.physical)) if name[0] != "."][:32]
    closure = sorted({*runtime.closure, plain_shell, *(f"/nix/store/{name}" for name in others)})
    job = replace(make_job("cd /nix/store; echo * | wc -w", shell=plain_shell), closure=closure)
    assert len(closure) > 32
    assert go(make(), job).run.stdout == f"{len(closure)}\n"


def test_jobs_that_see_the_same_share_a_container_where_more_than_one_waits(
    make: Make, plain_shell: str, python_shell: str
) -> None:
    sandbox = make(waiting=2)
    assert sandbox._pool is not None
    pool = sandbox._pool
    until(lambda: len(pool._waiting) == 2)
    order = [plain_shell, plain_shell, python_shell, python_shell, plain_shell, python_shell]
    ran: dict[str, set[str]] = {shell: set() for shell in order}
    for shell in order:
        ran[shell].add(go(sandbox, replace(make_job("cat /proc/self/cgroup", shell=shell), closure=[shell])).run.stdout)
    assert [len(containers) for containers in ran.values()] == [1, 1]
    assert ran[plain_shell] != ran[python_shell]


def test_an_entry_that_was_collected_and_made_anew_is_seen_anew(
    make: Make, runtime: Runtime, nix_builder: NixBuilder, plain_shell: str
) -> None:
    sandbox = make()
    used = container(sandbox)
    entry = f"/nix/store/{'0' * 32}-entry"
    there = nix_builder.store.on_disk(entry)
    closure = [*runtime.closure, plain_shell, entry]
    job = replace(make_job(f"cat {entry}/text", shell=plain_shell), closure=closure)
    try:
        for text in ("one", "one", "two", "two", "three"):
            shutil.rmtree(there, ignore_errors=True)
            there.mkdir()
            (there / "text").write_text(text)
            assert [go(sandbox, job).run.stdout for _ in range(2)] == [text, text]
    finally:
        shutil.rmtree(there)
    assert container(sandbox) == used


# The look at these files takes as long as one may take: half a second of CPU time.
STRANGE = "for n in {1..200}; do echo '#!/usr/bin/env nosuch' >$n; done; sleep 0.05; chmod +x *; cat * >seen; exit 127"


def test_who_looks_into_a_jobs_files_has_nothing_but_the_jobs_rights(
    make: Make, runtime: Runtime, plain_shell: str
) -> None:
    sandbox = make(waiting=1)
    pid = waiting(sandbox).transport.pid
    job = replace(make_job(STRANGE, shell=plain_shell), env={"PATH": f"{'x:' * 20000}{runtime.coreutils}/bin"})
    seen: list[tuple[list[str], str, str]] = []
    while not seen:
        running = threading.Thread(target=go, args=(sandbox, job))
        running.start()
        while running.is_alive() and not seen:
            seen = [found for each in family(pid) if (found := looking(each))]
        running.join()
        pid = waiting(sandbox).transport.pid
    opened, maps, capabilities = seen[0]
    assert len({each for each in opened if not each.startswith(("/job", "/nix/store"))}) == 1, opened
    assert capabilities == "0000000000000000"
    assert "/dev/zero" not in maps


def looking(pid: int) -> tuple[list[str], str, str] | None:
    """Return what a process that looks into a job's files has.

    Return None for any other process, or one that has ended.
    """
    try:
        there = Path(f"/proc/{pid}")
        status = dict(line.split(":", 1) for line in (there / "status").read_text().splitlines())
        busy = int((there / "stat").read_text().rpartition(")")[2].split()[11])
        if (
            status["Name"].strip() != "supervisor"
            or int(status["Uid"].split()[0]) % 3 != HOLDERS.start % 3 + 1
            or busy < 5
        ):
            return None
        opened = [os.readlink(each) for each in (there / "fd").iterdir()]
        return opened, (there / "maps").read_text(), status["CapPrm"].strip()
    except OSError:
        return None
