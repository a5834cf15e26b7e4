"""The daemons as real processes: ready, stop, one of a role, and what they say when they cannot start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from spoold.spool import layout

Start = Callable[..., AbstractContextManager[subprocess.Popen[bytes]]]
GOOD = b'{"files": [{"name": "run.sh", "content": "echo hi"}]}'


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    root = tmp_path / "spool"
    layout.create(str(root))
    return root


@pytest.fixture
def start(spool: Path, tmp_path: Path) -> Start:
    @contextmanager
    def run(role: str, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "spoold.cli.daemon", "--spool", str(spool), *options, role]
        env = os.environ | {"SPOOLD_CONFIG": str(tmp_path / "spoold.toml")} | environment
        process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    (tmp_path / "spoold.toml").write_text("")
    return run


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def notifications(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(20)
        yield address, listener


def test_it_tells_the_service_manager_works_and_drains(
    start: Start, spool: Path, notifications: tuple[str, socket.socket]
) -> None:
    address, listener = notifications
    with start("intake", NOTIFY_SOCKET=address) as process:
        assert listener.recv(100) == b"READY=1"
        (spool / "incoming" / "a.json").write_bytes(GOOD)
        until((spool / "new" / "a.json").exists, 4)  # by the event: the scan is every 5 s
        process.send_signal(signal.SIGTERM)
        assert listener.recv(100) == b"STOPPING=1"
        assert process.wait(20) == 0


def test_what_was_dropped_while_it_was_down_is_taken_at_the_start(start: Start, spool: Path) -> None:
    (spool / "incoming" / "a.json").write_bytes(GOOD)
    with start("intake"):
        until((spool / "new" / "a.json").exists)


def test_after_a_kill_it_starts_again_at_once(start: Start, spool: Path) -> None:
    for name in ("a", "b"):
        with start("intake") as process:
            (spool / "incoming" / f"{name}.json").write_bytes(GOOD)
            until(lambda name=name: (spool / "new" / f"{name}.json").exists())  # type: ignore[misc]
            process.kill()
            process.wait()


def test_one_of_a_role_per_spool(start: Start, spool: Path) -> None:
    with start("health") as first:
        until((spool / "tmp" / "health.probe").exists)
        with start("health") as second:
            assert second.wait(20) == 1
            assert b"a health runs on this spool already" in second.stderr.read() if second.stderr else False
        assert first.poll() is None


def test_without_a_spool_it_says_how_to_make_one(start: Start, spool: Path) -> None:
    (spool / "progress").rmdir()
    with start("health") as process:
        assert process.wait(20) == 1
        assert process.stderr is not None
        assert b"spoolctl init" in process.stderr.read()


def test_a_setting_that_is_misspelt_is_named(start: Start, tmp_path: Path) -> None:
    (tmp_path / "spoold.toml").write_text("[lease]\nrenewl = 1\n")
    with start("health") as process:
        assert process.wait(20) == 1
        assert process.stderr is not None
        message = process.stderr.read()
    assert b"renewl" in message
    assert b"spoold.toml" in message


def test_a_builder_without_nixpkgs_says_what_to_set(start: Start) -> None:
    with start("builder") as process:
        assert process.wait(20) == 1
        assert process.stderr is not None
        assert b"nixpkgs" in process.stderr.read()


def test_an_executor_waits_for_the_builder_and_says_so(start: Start, spool: Path) -> None:
    with start("executor") as process:
        (spool / "new" / "a.json").write_bytes(json.dumps({}).encode())
        assert process.stderr is not None
        lines = iter(process.stderr.readline, b"")
        assert any(b"waiting for the builder" in line for line in lines)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert (spool / "new" / "a.json").exists()


@pytest.mark.parametrize("role", ["intake", "health"])
def test_a_daemon_loads_no_library_that_only_others_need(role: str) -> None:
    program = (
        "import sys, spoold.cli.daemon as d; from spoold.config import Settings\n"
        f"d.ROLES[{role!r}](Settings()); print(sorted({{'docker', 'requests', 'rich'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"[]\n"
