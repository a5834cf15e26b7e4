"""Turns with real jobs of real users: short jobs that arrive while another's long jobs hold all slots run next.

Only the order counts in which jobs begin and end. Two long jobs use twice as much as twenty short ones, however slow
the machine is: those of a third person tell how long that has to be.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from spoold.config import DockerSettings, ExecutorSettings, SandboxSettings, Settings
from tests.served import PATIENCE, Served

pytestmark = [
    pytest.mark.alike("recycled"),
    pytest.mark.docker,
    pytest.mark.nix,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users"),
]
ALICE, BOB, CAROL = 64_101, 64_102, 64_103
LONG, LONGEST = 6.0, 100.0  # seconds of a long job, at least and at most
EVENT = re.compile(r"submission=([a-z0-9-]+) .*msg=(running|done)$", re.MULTILINE)


@pytest.fixture(params=["single-use", "recycled"])
def served(
    request: pytest.FixtureRequest, nix_settings: Settings, docker_host: str, runtime: object
) -> Iterator[Served]:
    directory = Path(tempfile.mkdtemp(prefix="spoold-turns."))  # other users can get there
    directory.chmod(0o711)
    settings = msgspec.structs.replace(
        nix_settings,
        docker=DockerSettings(host=docker_host),
        sandbox=SandboxSettings(mode=request.param),
        executor=ExecutorSettings(slots=2, drain=0.1),
    )
    made = Served(directory, settings)
    yield made
    made.stop()
    shutil.rmtree(directory)


def drop(served: Served, uid: int, script: str, *names: str) -> None:
    """Drop files as a user does, each complete, and all at once."""
    limits = {"run": {"time": 2 * LONGEST}}
    request = json.dumps({"files": [{"name": "run.sh", "content": script}], "limits": limits})
    incoming = served.spool / "incoming"
    script = (
        'cd "$0" && cat >.all && for name; do cp .all ".$name"; done && for name; do mv ".$name" "$name.json"; done;'
        "rm .all"
    )
    command = ["sh", "-c", script, str(incoming), *names]
    subprocess.run(command, user=uid, group=uid, extra_groups=[], cwd="/", input=request.encode(), check=True)


def events(served: Served) -> list[tuple[str, str]]:
    """Return the starts and ends of jobs in order."""
    return [(what, name) for name, what in EVENT.findall(Path(served.log.name).read_text())]


def until(served: Served, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, served.said()
        time.sleep(0.02)


def time_of(served: Served, uid: int, *names: str) -> float:
    """Return the seconds that short jobs take together."""
    began = time.monotonic()
    drop(served, uid, "echo hi", *names)
    until(served, lambda: {("done", name) for name in names} <= set(events(served)))
    return time.monotonic() - began


def test_short_jobs_go_before_the_next_long_ones(served: Served) -> None:
    """Twenty short jobs come after two of eighteen long ones began. They end before a fifth long one has begun."""
    time_of(served, CAROL, "warm")  # the shell may have to be built
    took = time_of(served, CAROL, *(f"first-{number}" for number in range(20)))
    long = min(max(LONG, 2 * took), LONGEST)
    drop(served, ALICE, f"sleep {long}", *(f"long-{number}" for number in range(18)))
    until(served, lambda: sum(name.startswith("long") for _, name in events(served)) == 2)
    drop(served, BOB, "echo hi", *(f"short-{number}" for number in range(20)))
    until(served, lambda: sum(event == ("done", f"short-{event[1][6:]}") for event in events(served)) == 20)
    happened = events(served)
    last = max(happened.index(("done", f"short-{number}")) for number in range(20))
    begun = [name for what, name in happened[:last] if what == "running" and name.startswith("long")]
    assert len(begun) <= 4, happened
    assert {json.loads(path.read_bytes())["status"] for path in served.spool.glob("done/short-*.response.json")} == {
        "COMPLETED"
    }

    def has_used_more() -> bool:
        seconds = {owner["uid"]: owner["slot_seconds"] for owner in served.ctl("top")["owners"]}
        return {ALICE, BOB} <= seconds.keys() and bool(seconds[ALICE] > seconds[BOB])  # it is noted now and then

    # usually at once; on a slow machine twenty short jobs may take as much as the first long ones
    until(served, has_used_more)
