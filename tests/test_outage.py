"""The engine ends in the middle of jobs and comes back: none of them is lost, and none is blamed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from spoold.config import Docker, Settings
from tests.engines import Daemon
from tests.served import Served

pytestmark = [pytest.mark.docker, pytest.mark.nix, pytest.mark.timeout(600)]


@pytest.fixture
def served(tmp_path: Path, nix_settings: Settings, daemon: Daemon, runtime: object) -> Iterator[Served]:
    made = Served(tmp_path, msgspec.structs.replace(nix_settings, docker=Docker(host=daemon.host, waiting=2)))
    yield made
    made.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_docker_ends_in_the_middle_of_jobs_and_comes_back(served: Served, daemon: Daemon, number: int) -> None:
    served.drop("warm", "echo hi")
    assert served.response("warm")["status"] == "COMPLETED"
    ids = [f"a{number}" for number in range(6)]
    for id_ in ids:
        served.drop(id_, "sleep 3; echo hi")
    deadline = time.monotonic() + 60
    while not os.listdir(served.spool / "running"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    daemon.stop(number)
    served.drop("b", "echo hi")
    time.sleep(3)
    assert "the engine cannot be used" in served.said()
    daemon.start()
    for id_ in [*ids, "b"]:
        response = served.response(id_)
        assert (response["status"], response["run"]["stdout"]) == ("COMPLETED", "hi\n"), response
    assert "attempt=2" not in Path(served.log.name).read_text()
    served.assert_nothing_is_left()
