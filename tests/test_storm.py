"""Daemons killed and stopped at random while several clients submit: one right answer each.

$SPOOLD_TEST_STORM says how many submissions; 150 by default, 10000 for a long night. $SPOOLD_TEST_SEED repeats a storm.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from spoold.config import Docker, Settings
from spoold.daemon import ROLES
from tests.served import LEASE, Served

pytestmark = [pytest.mark.docker, pytest.mark.nix, pytest.mark.timeout(3600)]
COUNT = int(os.environ.get("SPOOLD_TEST_STORM", "150"))
SEED = int(os.environ.get("SPOOLD_TEST_SEED", str(int(time.time()))))
CLIENTS = 4


@pytest.fixture
def served(tmp_path: Path, nix_settings: Settings, docker_host: str, runtime: object) -> Iterator[Served]:
    docker = Docker(host=docker_host, mode="recycled")
    made = Served(tmp_path, msgspec.structs.replace(nix_settings, docker=docker))
    yield made
    made.stop()
    shutil.rmtree(made.spool)


class Storm(threading.Thread):
    """Kills or stops a daemon every few seconds until it is told that all is answered."""

    def __init__(self, served: Served) -> None:
        super().__init__(name="storm")
        self.served = served
        self.chance = random.Random(SEED)  # noqa: S311
        self.over = threading.Event()
        self.blows: list[str] = []
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            while not self.over.wait(self.chance.uniform(0.2, 2.0)):
                self.blow()
        except Exception as error:  # noqa: BLE001 - the test raises it
            self.failure = error

    def blow(self) -> None:
        role = self.chance.choice(list(ROLES))
        process = self.served.processes[role]
        what = self.chance.choices(["kill", "stop"], [2, 1])[0]
        self.blows.append(f"{what} {role}")
        if what == "kill":
            process.kill()
            process.wait()
            self.served.start([role])
        else:
            process.send_signal(signal.SIGSTOP)
            time.sleep(LEASE.limit + 1.0)
            process.send_signal(signal.SIGCONT)


def test_every_submission_is_answered_once_and_right(served: Served) -> None:
    storm = Storm(served)
    storm.start()
    clients = [threading.Thread(target=submit, args=(served, number)) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    try:
        for number in range(COUNT):
            response = served.response(f"job-{number}")
            assert (response["status"], response["run"]["stdout"]) == ("COMPLETED", f"{number}\n"), (SEED, response)
    finally:
        storm.over.set()
        storm.join()
    assert storm.failure is None, (SEED, storm.blows, storm.failure)
    assert storm.blows
    served.assert_nothing_is_left()
    assert served.ctl("check")["unexplained"] == []


def submit(served: Served, client: int) -> None:
    """Drop one client's share, as its own user, at a steady pace."""
    for number in range(client, COUNT, CLIENTS):
        path = served.config.parent / f"job-{number}.json"
        files = [{"name": "run.sh", "content": f"echo {number}\n"}]
        path.write_bytes(msgspec.json.encode({"files": files}))
        if os.geteuid() == 0:
            os.chown(path, 2001 + client, 2001 + client)
        path.rename(served.spool / "incoming" / path.name)
        time.sleep(0.1)
