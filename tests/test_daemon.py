"""The daemons as real processes: ready, stop, one for each role, and their messages when they cannot start."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from spoold.host import pulse
from spoold.spool import layout
from spoold.spool.lease import Heartbeat
from tests.names import named
from tests.waiting import until

PATIENCE = 100.0  # seconds
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


@pytest.fixture
def notifications(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(PATIENCE)
        yield address, listener


def test_it_tells_the_service_manager_works_and_drains(
    start: Start, spool: Path, tmp_path: Path, notifications: tuple[str, socket.socket]
) -> None:
    address, listener = notifications
    # no scan comes, so intake learns of the file from an event
    (tmp_path / "spoold.toml").write_text("[spool]\nscan = 3600\n")
    with start("intake", NOTIFY_SOCKET=address) as process:
        assert listener.recv(100) == b"READY=1"
        (spool / "incoming" / "a.json").write_bytes(GOOD)
        until((spool / "new" / named("a")).exists)
        process.send_signal(signal.SIGTERM)
        assert listener.recv(100).startswith(b"STOPPING=1\nEXTEND_TIMEOUT_USEC=")
        assert process.wait(PATIENCE) == 0


def test_what_was_dropped_while_it_was_down_is_taken_at_the_start(start: Start, spool: Path) -> None:
    (spool / "incoming" / "a.json").write_bytes(GOOD)
    with start("intake"):
        until((spool / "new" / named("a")).exists)


def test_after_a_kill_it_starts_again_at_once(start: Start, spool: Path) -> None:
    for name in ("a", "b"):
        with start("intake") as process:
            (spool / "incoming" / f"{name}.json").write_bytes(GOOD)
            until(lambda name=name: (spool / "new" / named(name)).exists())  # type: ignore[misc] # mypy cannot infer it
            process.kill()
            process.wait()


def test_one_of_a_role_per_spool(start: Start, spool: Path) -> None:
    with start("health") as first:
        until((spool / "tmp" / "health.probe").exists)
        with start("health") as second:
            assert second.wait(PATIENCE) == 1
            assert b"health runs on this spool already" in second.stderr.read() if second.stderr else False
        assert first.poll() is None


def test_without_a_spool_it_says_how_to_make_one(start: Start, spool: Path) -> None:
    (spool / "progress").rmdir()
    with start("health") as process:
        assert process.wait(PATIENCE) == 1
        assert process.stderr is not None
        assert b"spoolctl init" in process.stderr.read()


def test_a_setting_that_is_misspelt_is_named(start: Start, tmp_path: Path) -> None:
    (tmp_path / "spoold.toml").write_text("[lease]\nrenewl = 1\n")
    with start("health") as process:
        assert process.wait(PATIENCE) == 1
        assert process.stderr is not None
        message = process.stderr.read()
    assert b"renewl" in message
    assert b"spoold.toml" in message


def test_a_builder_without_nixpkgs_says_what_to_set(start: Start) -> None:
    with start("builder") as process:
        assert process.wait(PATIENCE) == 1
        assert process.stderr is not None
        assert b"nixpkgs" in process.stderr.read()


def test_an_executor_waits_for_the_builder_and_says_so(start: Start, spool: Path) -> None:
    with start("executor") as process:
        (spool / "new" / named("a")).write_bytes(json.dumps({}).encode())
        assert process.stderr is not None
        lines = iter(process.stderr.readline, b"")
        assert any(b"waiting for the builder" in line for line in lines)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert (spool / "new" / named("a")).exists()


@pytest.mark.parametrize("role", ["intake", "health"])
def test_a_daemon_loads_no_library_that_only_others_need(role: str) -> None:
    program = (
        "import sys, spoold.cli.daemon as d; from spoold.config import Settings\n"
        f"d.ROLES[{role!r}](Settings())\n"
        "print(sorted({'click', 'docker', 'requests', 'rich', 'shutil'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"[]\n"


@pytest.mark.parametrize(
    ("host", "loaded"),
    [("", []), ("unix:///run/docker.sock", []), ("tcp://engine:2376", ["ssl"]), ("https://engine", ["ssl"])],
)
def test_the_sdk_of_docker_loads_nothing_that_guesses_encodings_and_tls_only_where_it_may_be_needed(
    host: str, loaded: list[str]
) -> None:
    program = (
        "import sys; from spoold.config import *; from spoold.engines import docker\n"
        f"docker.make(Settings(docker=DockerSettings(host={host!r})), None)\n"
        "print(sorted({'chardet', 'charset_normalizer', 'ssl', 'OpenSSL'} & set(sys.modules)))"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    assert subprocess.run(command, capture_output=True, check=True, env=environment).stdout == f"{loaded}\n".encode()


def heard(listener: socket.socket) -> list[bytes]:
    """Return the messages to the service manager since the last call."""
    listener.setblocking(False)
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(listener.recv(1000))
    return found


LONG_STEPS = """
import sys, threading, time
from spoold import daemon
from spoold.model.states import Role
from spoold.actors.health import Health
from spoold.config import Settings, SpoolSettings
from spoold.host import fsops, log

class Long(Health):
    def step(self, hints=None):
        self.count = getattr(self, "count", 0) + 1
        if self.count == 1:
            return 0.1
        if sys.argv[2] == "stuck":
            print("the long step", file=sys.stderr, flush=True)
            threading.Event().wait()
        while True:
            fsops.exists("/nonexistent")
            time.sleep(0.01)

log.set_up(level="info", journal=False)
daemon.ROLES[Role.HEALTH] = Long
daemon.serve(Settings(spool=SpoolSettings(path=sys.argv[1])), [Role.HEALTH])
"""


@pytest.mark.parametrize("way", ["stuck", "busy"])
def test_a_loop_that_is_stuck_is_no_longer_said_to_live(
    spool: Path, notifications: tuple[str, socket.socket], way: str
) -> None:
    """A loop that is busy with a long step still counts as alive."""
    address, listener = notifications
    env = os.environ | {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000"}
    process = subprocess.Popen([sys.executable, "-c", LONG_STEPS, str(spool), way], env=env, stderr=subprocess.PIPE)
    assert process.stderr
    try:
        assert listener.recv(100) == b"READY=1"
        if way == "busy":
            time.sleep(2.3)  # longer than a stuck loop would count as alive
            heard(listener)
            listener.settimeout(PATIENCE)
            assert listener.recv(100) == b"WATCHDOG=1"
        else:
            assert any(line == b"the long step\n" for line in process.stderr)
            named = (b"health: in a step in which nothing" in line for line in process.stderr)
            assert any(named)  # this line may be about an earlier look, because the whole process may have stood still
            assert any(named)
            heard(listener)
            assert any(named), "the daemon logs this line where it would otherwise send a sign of life"
            assert heard(listener) == []
    finally:
        process.kill()
        process.communicate()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_heartbeat_that_ended_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heartbeat = Heartbeat(0.01, str(tmp_path / "held"))
    fails = threading.Event()

    def beat() -> None:
        if fails.is_set():
            raise SystemExit  # ends the thread silently

    monkeypatch.setattr(heartbeat, "beat", beat)
    heartbeat.start()
    assert heartbeat.stuck(PATIENCE) == ""
    fails.set()
    until(lambda: "has ended" in heartbeat.stuck(PATIENCE))


def test_silence_is_counted_from_the_last_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "_beats", {})  # the idents of ended threads are used again
    end = threading.Event()
    idle = threading.Thread(target=end.wait)
    idle.start()
    assert pulse.silence(idle, time.monotonic() - 10) >= 10
    assert pulse.silence(idle, time.monotonic() + 1000) == 0
    end.set()
    idle.join()


def ended(process: subprocess.Popen[bytes]) -> str:
    """Stop a daemon in order, and return what it logged."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    return process.stderr.read().decode() if process.stderr else ""


def have_it_read(process: subprocess.Popen[bytes], listener: socket.socket, config: Path, text: str) -> None:
    """Change the settings of a daemon and make it read them."""
    config.write_text(text)
    process.send_signal(signal.SIGHUP)
    assert listener.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    assert listener.recv(100) == b"READY=1"


def test_settings_are_read_again_at_sighup(
    start: Start, spool: Path, tmp_path: Path, notifications: tuple[str, socket.socket]
) -> None:
    address, listener = notifications
    config = tmp_path / "spoold.toml"
    config.write_text("[spool]\nsettle = 3600\nscan = 0.2\n")
    with start("intake", NOTIFY_SOCKET=address) as process:
        assert listener.recv(100) == b"READY=1"
        (spool / "incoming" / "half.json").write_bytes(GOOD[:9])
        for text in ("[spool]\nsetle = 1\n", '[spool]\nsettle = 0.1\n[docker]\nmode = "recycled"\n'):
            have_it_read(process, listener, config, text)
        until((spool / "done" / "half.response.json").exists)
        said = ended(process)
    assert "the settings cannot be taken over; all stays as it was" in said
    assert "setle" in said
    assert "taken_over=spool.scan,spool.settle" in said
    assert 'left_as_they_were=sandbox.mode msg="settings that need a restart have changed"' in said


def test_a_weight_of_nobody_starts_no_executor(start: Start, tmp_path: Path) -> None:
    (tmp_path / "spoold.toml").write_text("[turns]\nweights = { nobody-of-this-name = 2 }\n")
    with start("executor") as process:
        assert process.wait(PATIENCE) == 1
        assert b"turns.weights: there is no user 'nobody-of-this-name'" in (
            process.stderr.read() if process.stderr else b""
        )


def test_a_weight_of_nobody_is_not_taken_over(
    start: Start, tmp_path: Path, notifications: tuple[str, socket.socket]
) -> None:
    address, listener = notifications
    (config := tmp_path / "spoold.toml").write_text("[spool]\nscan = 0.2\n")
    with start("intake", NOTIFY_SOCKET=address) as process:
        assert listener.recv(100) == b"READY=1"
        for text in ("weights = { nobody-of-this-name = 2 }", "weights = { 'uid:1' = 2 }"):
            have_it_read(process, listener, config, f"[spool]\nscan = 0.3\n[turns]\n{text}\n")
        said = ended(process)
    assert said.count("the settings cannot be taken over; all stays as it was") == 1
    assert "taken_over=spool.scan,turns.weights" in said


def test_a_second_sigterm_hurries(spool: Path, tmp_path: Path, notifications: tuple[str, socket.socket]) -> None:
    """The first SIGTERM lets a job go on for [executor] drain seconds, which is a minute."""
    address, listener = notifications
    config = tmp_path / "idle.toml"
    config.write_text(f'[spool]\npath = "{spool}"\nscan = 0.2\n[nixpkgs]\ndefault = "/srv/nixpkgs"\n')
    (spool / "incoming" / "long.json").write_text(json.dumps(json.loads(GOOD) | {"inputs": "nap 100"}))
    processes = []
    for roles in ("builder,intake", "executor"):
        command = [sys.executable, "-m", "tests.idle", str(config), roles, "error"]
        processes.append(subprocess.Popen(command, env=os.environ | {"NOTIFY_SOCKET": address}))
        assert listener.recv(100) == b"READY=1"
    executor = processes[1]
    try:
        until(lambda: os.listdir(spool / "running"))
        executor.send_signal(signal.SIGTERM)
        assert listener.recv(100).startswith(b"STOPPING=1\n")  # two pending SIGTERMs could become one
        with pytest.raises(subprocess.TimeoutExpired):
            executor.wait(1.0)
        executor.send_signal(signal.SIGTERM)
        assert executor.wait(PATIENCE) == 0
        assert os.listdir(spool / "new") == [named("long")]  # the job lost no attempt
    finally:
        for process in processes:
            process.kill()
            process.wait()
