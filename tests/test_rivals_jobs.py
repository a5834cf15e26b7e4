"""Real users try what one user's job could do to another's or to the host, in sandboxes of both modes.

Alice is the attacker. Bob's jobs run beside hers and after them. tests/sandbox/ tests each way by itself. test_turns.py
tests how users share time, and test_memory.py how they share memory.
"""

from __future__ import annotations

import ast
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spoold.config import Settings
from spoold.model.limits import MIB
from tests import cores, huge
from tests.overhears import EAVESDROPPER, listening
from tests.sandbox import test_importance, test_masks, test_sockets
from tests.sandbox.test_overheard import SLOW
from tests.served import PATIENCE, Served, in_mode

pytestmark = [
    pytest.mark.docker,
    pytest.mark.nix,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users"),
]
ALICE, BOB = 64_101, EAVESDROPPER
PYTHON = "{ pkgs ? import <nixpkgs> {} }: pkgs.mkShell { buildInputs = [ pkgs.python3 ]; }\n"
PATIENT = {"run": {"time": 300, "cpu_time": 300}}


@pytest.fixture(scope="module", params=["single-use", "recycled"])
def served(
    request: pytest.FixtureRequest, nix_settings: Settings, docker_host: str, runtime: object
) -> Iterator[Served]:
    with in_mode(request.param, nix_settings, docker_host, "spoold-rivals.") as made:
        yield made


def python(program: str) -> dict[str, Any]:
    """Return the keys of a submission that runs a Python program."""
    files = [{"name": "main.py", "content": program}]
    return {"run": "exec python3 -u main.py", "expression": PYTHON, "files": files, "limits": PATIENT}


def drop(served: Served, uid: int, what: dict[str, Any]) -> str:
    """Submit something as a user. Return the id."""
    id_ = f"{uid}.{uuid.uuid4().hex}"
    served.drop_as(uid, id_, **what)
    return id_


def phase(served: Served, id_: str) -> dict[str, Any]:
    """Wait for the response and return its run."""
    response = served.response(id_)
    ran: dict[str, Any] = response["run"]
    assert response["status"] in ("COMPLETED", "RUN_FAILED"), response
    return ran


def printed(served: Served, uid: int, program: str) -> Any:
    """Run a program, and return the value that it prints."""
    ran = phase(served, drop(served, uid, python(program)))
    assert ran["outcome"] == "ok", ran
    return ast.literal_eval(ran["stdout"])


def until(served: Served, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, served.said()
        time.sleep(0.02)


def test_another_reads_no_secret_of_a_job(served: Served, tmp_path: Path) -> None:
    """Bob watches all processes while Alice's job runs. She cancels it once he has found her argument."""
    variable, stdin, content, argument = words = [uuid.uuid4().hex for _ in range(4)]
    shell = PYTHON.replace("];", f"]; shellHook = ''{SLOW}'';")
    with listening(*(word[::-1] for word in words), log=tmp_path / "heard") as found:
        what = {"run": "#!/bin/sh\nsleep 600", "expression": shell, "limits": {"run": {"time": 900}}}
        files = [{"name": "file", "content": content}]
        more = {"env": {"TOKEN": variable}, "inputs": stdin, "args": [argument], "files": files}
        id_ = drop(served, ALICE, what | more)
        until(served, lambda: argument in (tmp_path / "heard").read_text())
        heard = found()
        cancel = f"echo {id_} >'{served.spool}/incoming/{id_}.cancel'"
        subprocess.run(["sh", "-c", cancel], user=ALICE, group=ALICE, extra_groups=[], cwd="/", check=True)
        assert served.response(id_)["status"] == "CANCELLED"
    assert [line for line in heard.splitlines() if any(word in line for word in (variable, stdin, content))] == []


def test_crashes_start_nothing_on_the_host(served: Served) -> None:
    what = {"run": cores.CRASHES, "expression": PYTHON, "limits": PATIENT}
    with cores.handled() as count:
        ids = [drop(served, uid, what) for uid in (ALICE, BOB)]
        for id_ in ids:
            assert phase(served, id_)["outcome"] == "ok"
        assert count() == 0


@pytest.mark.parametrize("kind", ["TCP", "UDP"])
def test_sockets_are_paid_by_whoever_fills_them(served: Served, kind: str) -> None:
    flood = test_sockets.FLOODS[kind]
    what = python(test_sockets.SETUP + flood.values + flood.program + test_sockets.WAIT)
    what["limits"] = {"run": {"time": 300, "cpu_time": 300, "memory": 64 * MIB, "open_files": 256}}
    alice, bob = drop(served, ALICE, what), drop(served, BOB, python("print('hi')"))
    assert phase(served, bob)["stdout"] == "hi\n"
    assert phase(served, alice)["outcome"] == "memory_limit"


def test_nobody_has_memory_that_is_not_counted(served: Served) -> None:
    with huge.pages():
        ids = [drop(served, uid, python(huge.TRIES)) for uid in (ALICE, BOB)]
        assert {phase(served, id_)["stdout"] for id_ in ids} == {huge.REFUSED}


def test_nobody_is_spared_where_memory_is_short(served: Served) -> None:
    ids = [drop(served, uid, python(test_importance.TRIES)) for uid in (ALICE, BOB)]
    for said in [phase(served, id_)["stdout"] for id_ in ids]:
        assert (said.count("1000"), said.count("written")) == (2, 0)


WRITE = """
import os, sys
piece = bytes(1 << 20)
for _ in range(4000): os.write(1, piece)
used = os.times()
print(used.user + used.system, file=sys.stderr)
"""


def test_who_writes_much_pays_for_its_being_read(served: Served) -> None:
    """A job doesn't count its own start either, but that is small beside the time for reading its output."""
    ids = [drop(served, uid, python(WRITE)) for uid in (ALICE, BOB)]
    for ran in [phase(served, id_) for id_ in ids]:
        assert ran["outcome"] == "ok", ran
        assert ran["cpu_time"] > float(ran["stderr"]) * 1.2


HOG = "kept = [bytearray(b'x' * (30 << 20)) for _ in range(4)]; print(1)"


COUNTERS = """
import glob, os
print([os.path.basename(name) for name in glob.glob("/sys/fs/cgroup/**/*", recursive=True) if os.path.isfile(name)])
"""


def test_a_job_reads_no_count_of_another(served: Served) -> None:
    """Bob's job can read its limits, but no file that counts what Alice's job took before."""
    assert printed(served, ALICE, HOG) == 1
    assert {*printed(served, BOB, COUNTERS)} <= {
        *("cgroup.controllers", "memory.max", "memory.high"),
        *("memory.limit_in_bytes", "memory.soft_limit_in_bytes"),
    }


def test_what_one_job_locks_and_watches_is_nothing_to_another(served: Served) -> None:
    """Alice's job locks and watches a program of the store while Bob's job uses it."""
    for seconds in (1.0, 2.0, 4.0, 8.0):
        holder = drop(served, ALICE, python(test_masks.HOLD.replace("SECONDS", str(seconds))))
        tried = []
        while not (served.spool / "done" / f"{holder}.response.json").exists():
            tried.append(printed(served, BOB, test_masks.TRY))
        held = ast.literal_eval(phase(served, holder)["stdout"])
        assert held["heard"] == b""
        if test_masks.was_free(held, tried):
            return
    pytest.fail("no job ran while the other held the file")


HOST = """
import os
def size(path):
    try: return len(os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1))
    except OSError: return 0
names = ("cmdline", "diskstats", "partitions", "interrupts", "softirqs", "buddyinfo", "zoneinfo", "pressure")
sizes = {name: size("/proc/" + name) for name in names}
print({"load": open("/proc/loadavg").read(), "there": [name for name in names if sizes[name]]})
"""


def test_a_job_sees_no_work_of_the_host(served: Served) -> None:
    """Bob's job sees the same whether another job is busy or none runs."""
    alone = printed(served, BOB, HOST)
    busy = drop(served, ALICE, python("import time; end = time.monotonic() + 5\nwhile time.monotonic() < end: pass"))
    beside = printed(served, BOB, HOST)
    assert phase(served, busy)["outcome"] == "ok"
    assert alone == beside == {"load": "0.00 0.00 0.00 1/1 1\n", "there": []}
    assert Path("/proc/cmdline").read_bytes()
