"""Everything is killed and stopped at random while several clients submit. Each gets one right answer.

The daemons, the engine and its containerd come back as under systemd, which restarts each process that ends.
$SPOOLD_TEST_STORM sets the number of submissions: 150 by default, 10000 for a long night. $SPOOLD_TEST_SEED repeats a
storm, and $SPOOLD_TEST_MODE sets the mode of the containers ("recycled" by default).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from spoold.config import DockerSettings, ExecutorSettings, LeaseSettings, SandboxSettings, Settings
from spoold.model.states import ALWAYS
from tests.engines import SLOWNESS, Daemon
from tests.served import Served

pytestmark = [pytest.mark.docker, pytest.mark.nix, pytest.mark.timeout(7200)]
COUNT = int(os.environ.get("SPOOLD_TEST_STORM", "150"))
SEED = int(os.environ.get("SPOOLD_TEST_SEED", str(int(time.time()))))
MODE = os.environ.get("SPOOLD_TEST_MODE", "recycled")
CLIENTS = 4
# Attempts are plentiful, because a submission that chance strikes three times is not what this test is about.
LEASE = LeaseSettings(renewal=0.5, limit=3.0, check=0.5, pause=0.5, attempts=100)


@pytest.fixture
def served(tmp_path: Path, nix_settings: Settings, daemon: Daemon, runtime: object) -> Iterator[Served]:
    settings = msgspec.structs.replace(
        nix_settings,
        docker=DockerSettings(host=daemon.host),
        sandbox=msgspec.convert({"mode": MODE}, SandboxSettings),
        executor=ExecutorSettings(slots=2),
    )
    made = Served(tmp_path, settings, LEASE)
    yield made
    made.stop()
    shutil.rmtree(made.spool)


class Storm(threading.Thread):
    """Call ``blow`` every few seconds until the end."""

    def __init__(self, blow: Callable[[random.Random], str], pause: tuple[float, float], seed: int) -> None:
        super().__init__(name="storm")
        self.blow = blow
        self.pause = pause
        self.chance = random.Random(seed)  # noqa: S311
        self.over = threading.Event()
        self.blows: Counter[str] = Counter()
        self.has_blown = threading.Event()
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            while not self.over.wait(self.chance.uniform(*self.pause)):
                self.blows[self.blow(self.chance)] += 1
                self.has_blown.set()
        except Exception as error:  # noqa: BLE001 - the test raises it
            self.failure = error
            self.has_blown.set()

    def end(self) -> None:
        self.over.set()
        self.join()


def blow_at_daemons(served: Served, chance: random.Random) -> str:
    role = chance.choice(list(ALWAYS))
    process = served.processes[role]
    what = chance.choices(["kill", "stop"], [2, 1])[0]
    if what == "kill":
        process.kill()
        process.wait()
        served.start([role])
    else:
        process.send_signal(signal.SIGSTOP)
        time.sleep(LEASE.limit + 1.0)
        process.send_signal(signal.SIGCONT)
    return f"{what} {role}"


def blow_at_engine(daemon: Daemon, chance: random.Random) -> str:
    what = chance.choice(["kill dockerd", "end dockerd", "stop dockerd", "kill containerd", "kill both"])
    if what == "stop dockerd":
        daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(chance.uniform(1.0, 5.0))
        daemon.process.send_signal(signal.SIGCONT)
        return what
    if what in ("kill containerd", "kill both"):
        daemon.restart_containerd()
    if what != "kill containerd":
        daemon.stop(signal.SIGTERM if what == "end dockerd" else signal.SIGKILL)
    keep(daemon)
    return what


def keep(daemon: Daemon) -> None:
    """Start dockerd until it answers, like systemd."""
    deadline = time.monotonic() + 120 * SLOWNESS
    while not daemon.answers():
        assert time.monotonic() < deadline, daemon.said()
        if daemon.process.poll() is not None:
            time.sleep(0.5)
            daemon.launch()
        time.sleep(0.2)


def test_every_submission_is_answered_once_and_right(served: Served, daemon: Daemon) -> None:
    storms = [
        Storm(lambda chance: blow_at_daemons(served, chance), (0.2, 2.0), SEED),
        Storm(lambda chance: blow_at_engine(daemon, chance), (1.0, 8.0), SEED + 1),
    ]
    clients = [threading.Thread(target=submit, args=(served, number, storms)) for number in range(CLIENTS)]
    began = time.monotonic()
    for thread in (*storms, *clients):
        thread.start()
    for client in clients:
        client.join()
    try:
        for number in range(COUNT):
            response = served.response(f"job-{number}")
            assert (response["status"], response["run"]["stdout"]) == ("COMPLETED", f"{number}\n"), (SEED, response)
    finally:
        for storm in storms:
            storm.end()
        print(f"{COUNT} in {time.monotonic() - began:.0f} s, seed {SEED}: {[dict(storm.blows) for storm in storms]}")
    assert [storm.failure for storm in storms] == [None, None], SEED
    assert all(storm.blows for storm in storms), SEED
    answers = [name for name in os.listdir(served.spool / "done") if name.endswith((".response.json", "refused.json"))]
    assert len(answers) == COUNT
    served.assert_nothing_is_left()
    assert served.ctl("check")["unexplained"] == []


def submit(served: Served, client: int, storms: list[Storm]) -> None:
    """Drop one client's share as its own user, at a steady pace. The second half waits until each storm has blown."""
    for number in range(client, COUNT, CLIENTS):
        if number >= COUNT // 2:
            for storm in storms:
                storm.has_blown.wait()
        path = served.config.parent / f"job-{number}.json"
        files = [{"name": "run.sh", "content": f"echo {number}\n"}]
        path.write_bytes(msgspec.json.encode({"files": files}))
        if os.geteuid() == 0:
            os.chown(path, 2001 + client, 2001 + client)
        path.rename(served.spool / "incoming" / path.name)
        time.sleep(0.1)
