"""The engine ends in the middle of jobs and comes back. No job is lost, and none is blamed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from spoold.config import DockerSettings, ExecutorSettings, SandboxSettings, Settings
from tests.engines import Daemon
from tests.served import Served
from tests.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.nix, pytest.mark.timeout(600)]


@pytest.fixture
def served(tmp_path: Path, nix_settings: Settings, daemon: Daemon, runtime: object) -> Iterator[Served]:
    settings = msgspec.structs.replace(
        nix_settings,
        docker=DockerSettings(host=daemon.host),
        sandbox=SandboxSettings(waiting=2),
        executor=ExecutorSettings(slots=2),
    )
    made = Served(tmp_path, settings)
    yield made
    made.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_docker_ends_in_the_middle_of_jobs_and_comes_back(served: Served, daemon: Daemon, number: int) -> None:
    served.drop("warm", "echo hi")
    assert served.response("warm")["status"] == "COMPLETED"
    ids = [f"a{number}" for number in range(4)]
    for id_ in ids:
        served.drop(id_, "sleep 2; echo hi")
    until(lambda: len(os.listdir(served.spool / "running")) > 1)
    time.sleep(0.5)  # so that one job is in its container
    daemon.stop(number)
    served.drop("b", "echo hi")
    until(lambda: "the engine cannot be used" in served.said())
    daemon.start()
    for id_ in [*ids, "b"]:
        response = served.response(id_)
        assert (response["status"], response["run"]["stdout"]) == ("COMPLETED", "hi\n"), response
    assert "attempt=2" not in Path(served.log.name).read_text()
    served.assert_nothing_is_left()
