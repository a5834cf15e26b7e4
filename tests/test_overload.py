"""A spool under more load than it can handle, and daemons on hosts in trouble. The engines are stand-ins.

$SPOOLD_TEST_FLOOD sets how many files are dropped at once. The default is 3000; use 100000 to see what grows with them.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spoold.config import ExecutorSettings, LeaseSettings, Settings, SpoolSettings
from spoold.config.file import load
from spoold.spool import layout
from tests.engines import SLOWNESS
from tests.names import named

FLOOD = int(os.environ.get("SPOOLD_TEST_FLOOD", "3000"))
ALICE, BOB = 1001, 1002
PATIENCE = (100.0 + FLOOD / 20) * SLOWNESS  # seconds
pytestmark = pytest.mark.timeout(300 + FLOOD // 20)


class Flooded:
    """A spool and its daemons as processes, over stand-in engines."""

    def __init__(self, directory: Path, slots: int = 2) -> None:
        self.spool = directory / "spool"
        layout.create(str(self.spool))
        self.config = directory / "spoold.toml"
        settings = Settings(
            spool=SpoolSettings(path=str(self.spool), settle=10.0, scan=3.0),
            # A daemon that lives loses no lease, however busy the host is.
            lease=LeaseSettings(renewal=0.5, limit=120.0, check=0.5, pause=0.3),
            executor=ExecutorSettings(slots=slots),
            nixpkgs={"default": "/srv/nixpkgs"},
        )
        self.config.write_bytes(msgspec.toml.encode(settings))
        self.log = directory / "log"
        self.level = "info"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *roles: str, prefix: tuple[str, ...] = ()) -> None:
        for role in roles:
            command = [*prefix, sys.executable, "-m", "tests.idle", str(self.config), role, self.level]
            with self.log.open("ab") as log:
                self.processes[role] = subprocess.Popen(command, stderr=log)

    def drop(self, id_: str, owner: int | None = None, **keys: Any) -> None:
        private = self.spool / "incoming" / f".{id_}.tmp"
        private.write_text(json.dumps({"files": [{"name": "run.sh", "content": "true"}], **keys}))
        if owner is not None and os.geteuid() == 0:
            os.chown(private, owner, owner)
        private.rename(self.spool / "incoming" / f"{id_}.json")

    def has(self, id_: str) -> bool:
        return (self.spool / "done" / f"{id_}.response.json").exists()

    def status(self, id_: str) -> str:
        return str(json.loads((self.spool / "done" / f"{id_}.response.json").read_bytes())["status"])

    def answered(self) -> int:
        return sum(name.endswith(".response.json") for name in os.listdir(self.spool / "done"))

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.02)

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            process.wait(PATIENCE)


@pytest.fixture
def flooded(tmp_path: Path) -> Iterator[Flooded]:
    made = Flooded(tmp_path, slots=4)
    yield made
    made.stop()


def test_a_submission_that_kills_its_executor_takes_no_other_along(flooded: Flooded) -> None:
    """The executor is killed while all its slots are in use, and is started again each time."""
    flooded.start("intake", "builder", "health")
    ids = [f"honest-{number}" for number in range(12)]
    for id_ in ids[:6]:
        flooded.drop(id_, inputs="nap 0.3")
    flooded.drop("killer", inputs="kill")
    for id_ in ids[6:]:
        flooded.drop(id_, inputs="nap 0.3")
    flooded.until(lambda: not any(name.endswith(".json") for name in os.listdir(flooded.spool / "incoming")))
    deaths = 0
    while not all(map(flooded.has, ["killer", *ids])):
        flooded.start("executor")
        executor = flooded.processes["executor"]
        flooded.until(lambda e=executor: e.poll() is not None or all(map(flooded.has, ["killer", *ids])))  # type: ignore[misc] # mypy cannot infer it
        deaths += executor.poll() is not None
    assert deaths == 3
    assert flooded.status("killer") == "INTERNAL_ERROR"
    assert {flooded.status(id_) for id_ in ids} == {"COMPLETED"}


def test_many_files_at_once(flooded: Flooded) -> None:
    """Memory stays flat. Another user's first submission and `spoolctl status` are answered meanwhile."""
    flooded.level = "warning"
    flooded.start("intake", "builder", "health", "executor")
    flooded.drop("warm")
    flooded.until(lambda: flooded.has("warm"))
    before = {role: resident(process.pid) for role, process in flooded.processes.items()}
    for number in range(FLOOD):
        # the rest of the files is complete before intake looks, however slowly they are dropped
        if number == FLOOD // 10:
            for role in ("intake", "executor"):
                flooded.processes[role].send_signal(signal.SIGSTOP)
        flooded.drop(f"a{number}", ALICE)
    flooded.drop("other", BOB)
    for process in flooded.processes.values():
        process.send_signal(signal.SIGCONT)
    flooded.until(lambda: flooded.has("other"))
    command = [sys.executable, "-m", "spoold.cli.ctl", "--config", str(flooded.config), "status", "other"]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    flooded.until(lambda: flooded.answered() == FLOOD + 2)
    times = {path.name: path.stat().st_mtime_ns for path in flooded.spool.glob("done/*.response.json")}
    if os.geteuid() == 0:
        assert sum(each <= times["other.response.json"] for each in times.values()) < FLOOD * 0.9
    for role, process in flooded.processes.items():
        assert resident(process.pid) < before[role] + (16 << 20) + FLOOD * 300, role


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop files of several users")
def test_a_hundred_uids_of_one_person_s_are_one_owner(flooded: Flooded, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files are there before intake looks, and the other user's file is the last. Jobs begin in order."""
    ranges = flooded.config.with_name("subuid")
    ranges.write_text(f"{ALICE}:100000:65536\n")
    monkeypatch.setenv("SPOOLD_TEST_SUBUID", str(ranges))
    for number in range(120):
        flooded.drop(f"a{number}", 100_000 + number, inputs="nap 0.05")
    flooded.drop("other", BOB)
    flooded.start("intake", "builder", "health")
    flooded.until(lambda: not any(name.endswith(".json") for name in os.listdir(flooded.spool / "incoming")))
    flooded.start("executor")
    flooded.until(lambda: flooded.answered() == 121)
    began = [line for line in flooded.log.read_text().splitlines() if "msg=running" in line]
    assert len(began) == 121
    assert next(number for number, line in enumerate(began) if "submission=other" in line) < 60


def resident(pid: int) -> int:
    """Return the bytes of memory that belong to a process alone."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel tells no anonymous memory")


def test_events_that_are_lost_are_made_up_for(flooded: Flooded) -> None:
    """More events come than the kernel keeps for a process that reads none (fs.inotify.max_queued_events)."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if most > 20_000:
        pytest.skip("this kernel keeps too many events for a test")
    flooded.start("intake")
    flooded.drop("first")
    flooded.until((flooded.spool / "new" / named("first")).exists)
    flooded.processes["intake"].send_signal(signal.SIGSTOP)
    for number in range(most // 3):  # created, written and closed, renamed from and to
        flooded.drop(f"a{number}")
    flooded.processes["intake"].send_signal(signal.SIGCONT)
    flooded.until(lambda: len(os.listdir(flooded.spool / "new")) == most // 3 + 1)


def test_without_inotify_it_says_so_and_goes_by_scans_until_it_can_watch(flooded: Flooded) -> None:
    """This user namespace allows no inotify instance at all."""
    script = 'echo 0 >/proc/sys/user/max_inotify_instances && exec "$@"'
    unshare = ("unshare", "--user", "--map-root-user", "sh", "-c", script, "sh")
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this host allows no user namespaces")
    flooded.start("intake", prefix=unshare)
    flooded.until(lambda: "cannot watch directories" in flooded.log.read_text())
    flooded.drop("a")
    flooded.until((flooded.spool / "new" / named("a")).exists)
    enter = ["nsenter", "--preserve-credentials", f"--user=/proc/{flooded.processes['intake'].pid}/ns/user"]
    subprocess.run([*enter, "sh", "-c", "echo 9 >/proc/sys/user/max_inotify_instances"], check=True)
    flooded.until(lambda: "watching again" in flooded.log.read_text())
    settings = load(str(flooded.config))
    spool = msgspec.structs.replace(settings.spool, scan=3600.0)  # no scan comes, so intake learns of files from events
    flooded.config.write_bytes(msgspec.toml.encode(msgspec.structs.replace(settings, spool=spool)))
    flooded.processes["intake"].send_signal(signal.SIGHUP)
    flooded.until(lambda: "taken_over=spool.scan" in flooded.log.read_text())
    for number in range(10):  # the next scan may find one of them
        flooded.drop(f"b{number}")
        flooded.until((flooded.spool / "new" / named(f"b{number}")).exists)


@pytest.mark.parametrize("role", ["intake", "executor"])
def test_with_no_descriptor_left_it_waits_and_goes_on(
    flooded: Flooded, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPOOLD_TEST_REST", "0.5")
    flooded.start("intake", "builder", "health", "executor")
    flooded.drop("warm")
    flooded.until(lambda: flooded.has("warm"))
    pid = flooded.processes[role].pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
    for number in range(20):
        flooded.drop(f"a{number}")
    flooded.until(lambda: "Too many open files" in flooded.log.read_text())
    time.sleep(1)
    assert not any(flooded.has(f"a{number}") for number in range(20))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
    flooded.until(lambda: flooded.answered() == 21)
    assert {flooded.status(f"a{number}") for number in range(20)} == {"COMPLETED"}
