"""Jobs of several users that together ask for more memory than the host has, with the real engines."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from spoold.config import DockerSettings, ExecutorSettings, SandboxSettings, Settings
from spoold.model.limits import MIB
from tests.served import Served

pytestmark = [
    pytest.mark.alike("recycled"),
    pytest.mark.docker,
    pytest.mark.nix,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users"),
]
ALICE, BOB = 64_201, 64_202
# Prints the host's clock at the begin and at the end. In between it holds all the memory that it asked for.
HOLDS = (
    "read begin _ </proc/uptime; for n in 1 2 3; do head -c 50M /dev/zero >/tmp/$n; done; sleep 2; "
    "read end _ </proc/uptime; echo $begin $end"
)


@pytest.fixture(params=["single-use", "recycled"])
def served(
    request: pytest.FixtureRequest, nix_settings: Settings, docker_host: str, runtime: object
) -> Iterator[Served]:
    mode: Literal["single-use", "recycled"] = request.param
    settings = msgspec.structs.replace(
        nix_settings,
        docker=DockerSettings(host=docker_host),
        sandbox=SandboxSettings(mode=mode, waiting=4),  # no reserve for bursts
        executor=ExecutorSettings(slots=4, memory=520 * MIB),
    )
    directory = Path(tempfile.mkdtemp(prefix="spoold-memory."))  # other users can get there
    directory.chmod(0o711)
    made = Served(directory, settings)
    yield made
    made.stop()
    shutil.rmtree(directory)


def asking(memory: int) -> dict[str, dict[str, int]]:
    return {"run": {"memory": memory, "time": 300, "cpu_time": 300}}


def test_no_more_run_at_once_than_there_is_memory_for(served: Served) -> None:
    """Each job asks for 200 MiB, and its container for 32 more, so two run at a time. The big one gets all memory."""
    small = [f"{name}-{number}" for number in range(3) for name in ("alice", "bob")]
    for id_ in small:
        served.drop_as(ALICE if id_.startswith("alice") else BOB, id_, HOLDS, limits=asking(200 * MIB))
    served.drop_as(BOB, "big", HOLDS, limits=asking(8 << 30))
    runs: list[tuple[float, float]] = []
    for id_ in [*small, "big"]:
        response = served.response(id_)
        assert response["status"] == "COMPLETED", response
        begin, end = map(float, response["run"]["stdout"].split())
        runs.append((begin, end))
    assert most_at_once(runs) == 2
    assert most_at_once(runs, beside=runs[-1]) == 1
    assert "is above this host's maximum" in served.response("big")["notes"][0]


def most_at_once(runs: list[tuple[float, float]], beside: tuple[float, float] = (0.0, float("inf"))) -> int:
    """Return how many ran at once at most, among the runs that overlap with ``beside``."""
    there = [run for run in runs if run[0] < beside[1] and run[1] > beside[0]]
    changes = sorted([(begin, 1) for begin, _ in there] + [(end, -1) for _, end in there])
    return max(accumulate(change for _, change in changes))
