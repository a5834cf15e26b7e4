"""Jobs of several users on one host, which together ask for more memory than there is; with the real engines."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from spoold.config import Docker, Executor, Settings
from spoold.model.limits import MIB
from tests.served import Served

pytestmark = [pytest.mark.docker, pytest.mark.nix]
ALICE, BOB = 64_201, 64_202
# What the host's clock says when it begins and when it ends; in between it has all the memory that it asked for.
HOLDS = (
    "read begin _ </proc/uptime; for n in 1 2 3; do head -c 50M /dev/zero >/tmp/$n; done; sleep 2; "
    "read end _ </proc/uptime; echo $begin $end"
)


@pytest.fixture(params=["single-use", "recycled"])
def served(
    request: pytest.FixtureRequest, tmp_path: Path, nix_settings: Settings, docker_host: str
) -> Iterator[Served]:
    mode: Literal["single-use", "recycled"] = request.param
    settings = msgspec.structs.replace(
        nix_settings,
        docker=Docker(host=docker_host, mode=mode),
        executor=Executor(slots=4, memory=520 * MIB),
    )
    made = Served(tmp_path, settings)
    yield made
    made.stop()


def drop(served: Served, id_: str, owner: int, memory: int) -> None:
    files = [{"name": "run.sh", "content": HOLDS}]
    private = served.spool / "incoming" / f".{id_}.tmp"
    private.write_bytes(msgspec.json.encode({"files": files, "limits": {"run": {"memory": memory, "time": 300}}}))
    if os.geteuid() == 0:
        shutil.chown(private, owner, owner)
    private.rename(served.spool / "incoming" / f"{id_}.json")


def test_no_more_run_at_once_than_there_is_memory_for(served: Served) -> None:
    """Each asks for 200 MiB, and its container for 24 more, so there are two at a time; the big one has all of it."""
    small = [f"{name}-{number}" for number in range(3) for name in ("alice", "bob")]
    for id_ in small:
        drop(served, id_, ALICE if id_.startswith("alice") else BOB, 200 * MIB)
    drop(served, "big", BOB, 8 << 30)
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
    """Return how many ran at once at most, of those that ran while ``beside`` did."""
    there = [run for run in runs if run[0] < beside[1] and run[1] > beside[0]]
    changes = sorted([(begin, 1) for begin, _ in there] + [(end, -1) for _, end in there])
    return max(accumulate(change for _, change in changes))
