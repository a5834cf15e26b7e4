"""Every bound of host/proc, on real processes."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold.host import proc
from spoold.host.proc import Bounds, Limit, Rlimits, run, signal_name
from spoold.model.errors import OperatorError

SOON = Bounds(wall=60, grace=0.3)


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_a_program_that_ends_well() -> None:
    finished = run(sh("echo out; echo err >&2"), SOON)
    assert finished.ok
    assert (finished.stdout.data, finished.stdout.total) == (b"out\n", 4)
    assert finished.stderr.data == b"err\n"
    assert 0 < finished.wall < SOON.wall
    assert finished.memory > 0


def test_the_exit_code_and_the_signal() -> None:
    assert run(sh("exit 7"), SOON).exit_code == 7
    finished = run(sh("kill -SEGV $$"), SOON)
    assert (finished.exit_code, finished.signal, finished.limit) == (None, "SIGSEGV", None)
    assert signal_name(signal.SIGRTMIN + 3) == "SIGRTMIN+3"
    assert signal_name(32) == "SIG32"


def test_the_environment_is_empty_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    assert run(["env"], SOON).stdout.data == b""
    assert run(["env"], SOON, env={"A": "b"}).stdout.data == b"A=b\n"


def test_stdin_is_what_was_given_and_nothing_else() -> None:
    assert run(["cat"], SOON, stdin=b"x" * 300_000).stdout.total == 300_000
    assert run(["cat"], SOON).stdout.total == 0


@pytest.mark.parametrize(
    ("script", "bounds", "limit"),
    [
        ("sleep 60", {"wall": 0.3}, Limit.WALL),
        ("trap '' TERM; while :; do :; done", {"wall": 0.3}, Limit.WALL),
        ("echo x; sleep 600", {"wall": 300, "silence": 0.3}, Limit.SILENCE),
        ("while :; do echo x; done", {"wall": 300, "output": 10_000}, Limit.OUTPUT),
        ("exec >&- 2>&-; sleep 60", {"wall": 0.3}, Limit.WALL),
    ],
)
def test_limits(script: str, bounds: dict[str, float], limit: Limit) -> None:
    finished = run(sh(script), Bounds(grace=0.2, **bounds))  # type: ignore[arg-type]
    assert finished.limit is limit
    assert finished.signal in ("SIGTERM", "SIGKILL")


def test_output_beyond_what_is_kept_is_counted_and_does_not_block() -> None:
    finished = run(sh("head -c 5000000 /dev/zero; echo end >&2"), Bounds(wall=60, stdout=100))
    assert (len(finished.stdout.data), finished.stdout.total) == (100, 5_000_000)
    assert finished.stderr.data == b"end\n"


def test_the_end_of_a_long_stream_is_kept_where_asked() -> None:
    finished = run(sh("seq 1 100000 >&2"), Bounds(wall=60, stderr=1000, tail=100))
    assert finished.stderr.data.startswith(b"1\n2\n")
    assert finished.stderr.data.endswith(b"\n99999\n100000\n")
    assert b"left out" in finished.stderr.data


def test_cancel() -> None:
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    assert run(["sleep", "60"], SOON, cancel=cancel).limit is Limit.CANCELLED


def test_a_watch_ends_the_program_and_says_why() -> None:
    finished = run(["sleep", "60"], SOON, watch=lambda: "too big")
    assert (finished.limit, finished.reason) == (Limit.WATCH, "too big")


def test_a_watch_that_fails_leaves_no_process(tmp_path: Path) -> None:
    def broken() -> str:
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise ZeroDivisionError
        return ""

    with pytest.raises(ZeroDivisionError):
        run(sh(f"echo $$ > {tmp_path}/pid; exec sleep 60"), SOON, watch=broken)
    assert not os.path.exists(f"/proc/{(tmp_path / 'pid').read_text().strip()}")


def test_what_is_left_of_the_group_is_killed(tmp_path: Path) -> None:
    run(sh(f"sleep 60 & echo $! > {tmp_path}/pid"), SOON)
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 60
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(child)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it may end between the open and the read
        return False


@pytest.mark.parametrize("delay", [0, 0.001, 0.002, 0.005, 0.01, 0.1])
def test_a_program_dies_with_us(tmp_path: Path, delay: float) -> None:
    seconds = f"{999 + delay}{os.getpid():07}"  # only this test's process has this duration
    script = f"from spoold.host.proc import *; print(flush=True); run(['sleep', '{seconds}'], Bounds(wall=99))"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        time.sleep(delay)
        parent.kill()
    deadline = time.monotonic() + 60
    while any(f"sleep\0{seconds}".encode() in text for text in _command_lines()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _command_lines() -> Iterator[bytes]:
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield file.read_bytes()


def test_a_grandchild_that_holds_the_pipes_does_not_hold_us(tmp_path: Path) -> None:
    script = "setsid sh -c 'echo $$ >pid; exec sleep 600' & until [ -s pid ]; do sleep 0.01; done; echo x"
    finished = run(sh(script), SOON, env={"PATH": os.environ["PATH"]}, cwd=str(tmp_path))
    grandchild = int((tmp_path / "pid").read_text())
    assert _alive(grandchild)
    os.kill(grandchild, signal.SIGKILL)
    assert (finished.ok, finished.stdout.data) == (True, b"x\n")


def test_all_that_was_printed_is_read_also_by_one_that_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last bytes are in the pipe when the program ends."""
    drain = proc._Supervision.drain
    printed = b"x" * 3000 + b"end"

    def late(supervision: proc._Supervision) -> None:
        now = itertools.count(time.monotonic(), 3600.0)
        with monkeypatch.context() as patch:
            patch.setattr(time, "monotonic", lambda: next(now))
            drain(supervision)

    def wait(supervision: proc._Supervision) -> None:
        os.waitid(os.P_PID, supervision.process.pid, os.WEXITED | os.WNOWAIT)

    monkeypatch.setattr(proc._Supervision, "drain", late)
    monkeypatch.setattr(proc._Supervision, "until_the_end", wait)
    assert run(["cat"], SOON, stdin=printed).stdout.data == printed


def test_a_grandchild_that_goes_on_printing_does_not_hold_us(tmp_path: Path) -> None:
    script = "setsid sh -c 'echo $$ >pid; exec yes' & until [ -s pid ]; do sleep 0.01; done"
    assert run(sh(script), SOON, env={"PATH": os.environ["PATH"]}, cwd=str(tmp_path)).ok
    with contextlib.suppress(ProcessLookupError):  # nobody reads its output any more
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_resource_limits() -> None:
    bounds = Bounds(wall=250, rlimits=Rlimits(cpu=1))  # a busy machine may give it little CPU
    assert run(sh("while :; do :; done"), bounds).signal == "SIGKILL"
    seen = run(
        sh("ulimit -v; ulimit -f; ulimit -n; ulimit -c"),
        Bounds(wall=60, rlimits=Rlimits(address_space=2**30, file_size=2**20, open_files=99)),
    )
    assert seen.stdout.data.split() == [b"1048576", b"2048", b"99", b"0"]


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(OperatorError, match="no-such-program is not installed"):
        run(["no-such-program"], SOON)


def test_many_threads_at_once() -> None:
    codes: list[int | None] = []
    threads = [
        threading.Thread(target=lambda number=number: codes.append(run(sh(f"exit {number}"), SOON).exit_code))
        for number in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(code for code in codes if code is not None) == list(range(40))


def test_a_pid_namespace_has_a_proc_of_its_own() -> None:
    """bubblewrap finds its child in /proc by the inner pid."""
    finished = run(sh("test -d /proc/$$ && exec readlink /proc/self"), SOON, pid_namespace=True)
    assert finished.ok
    assert int(finished.stdout.data) < 10
