"""Many jobs of all kinds through recycled containers. Honest jobs get right results, and nothing of the others stays.

$SPOOLD_TEST_SOAK sets the number of jobs. The default is 200; use 2000 to see what adds up over time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from spoold.config import DockerSettings, OciSettings, SandboxSettings, Settings
from tests import engines
from tests.served import Served

pytestmark = [pytest.mark.docker, pytest.mark.nix, pytest.mark.timeout(1800)]
JOBS = int(os.environ.get("SPOOLD_TEST_SOAK", "200"))
SMALL = {"memory": 64 << 20, "processes": 16}
HOSTILE = [  # each script with the outcomes that it may have
    (":(){ :|:& };:", {"time_limit", "nonzero_exit", "ok", "cpu_limit"}),
    ("head -c 300M /dev/zero | tail", {"memory_limit"}),
    ("head -c 400M /dev/zero >/tmp/x", {"memory_limit", "file_limit", "nonzero_exit"}),
    ("exec yes", {"time_limit", "cpu_limit"}),  # both limits are one second
    ("trap '' TERM INT HUP; while :; do :; done", {"time_limit", "cpu_limit"}),
    ("setsid sleep 1000 & setsid sleep 1000 & exit 0", {"ok"}),
    ("kill -9 -1; sleep 1000", {"signalled", "nonzero_exit", "time_limit"}),
    ("kill -STOP $$", {"time_limit"}),
    (
        "i=0; while :; do i=$((i+1)); echo >/job/$i || exit 3; done",
        {"nonzero_exit", "memory_limit", "time_limit", "cpu_limit"},
    ),
    (
        "mkdir -p /tmp/a/b; cd /tmp/a; while mkdir b 2>/dev/null || cd b; do :; done",
        {"time_limit", "cpu_limit", "nonzero_exit"},
    ),
]


@pytest.fixture
def served(tmp_path: Path, nix_settings: Settings, engine_at: str, runtime: object) -> Iterator[Served]:
    is_oci = engine_at == engines.OCI
    made = Served(
        tmp_path,
        msgspec.structs.replace(
            nix_settings,
            docker=DockerSettings(host="" if is_oci else engine_at),
            oci=OciSettings(state=str(tmp_path / "oci")),
            sandbox=SandboxSettings(engine="oci" if is_oci else "docker", mode="recycled"),
        ),
    )
    yield made
    made.stop()
    shutil.rmtree(made.spool)


def test_honest_jobs_among_hostile_ones(served: Served, nix_settings: Settings, engine_at: str) -> None:
    warm = max(20, JOBS // 10)
    serve(served, "warm", warm)
    before = {role: resident(process.pid) for role, process in served.processes.items()}
    ours = (str(served.spool), nix_settings.nix.state)
    mounts = mounted(*ours)
    serve(served, "job", JOBS)
    served.assert_nothing_is_left()
    for role, process in served.processes.items():
        assert resident(process.pid) < before[role] + (16 << 20), role
    served.stop()
    assert containers(served, engine_at) == []
    assert mounted(*ours) <= mounts


def serve(served: Served, name: str, count: int) -> None:
    """Drop ``count`` jobs, one in ten of them hostile, and check each outcome."""
    for number in range(count):
        if number % 10 == 9:
            script, outcomes = HOSTILE[number // 10 % len(HOSTILE)]
            seconds = 1.0 if "time_limit" in outcomes else 10.0
            served.drop(f"{name}-{number}", script, limits={"run": SMALL | {"time": seconds}})
        else:
            served.drop(f"{name}-{number}", f"cat; ls -A /tmp; echo {number}", inputs=f"{name} ")
    for number in range(count):
        phase = served.response(f"{name}-{number}")["run"]
        if number % 10 == 9:
            script, outcomes = HOSTILE[number // 10 % len(HOSTILE)]
            assert phase["outcome"] in outcomes, (script, phase)
        else:
            assert (phase["stdout"], phase["outcome"]) == (f"{name} {number}\n", "ok"), phase


def resident(pid: int) -> int:
    """Return the bytes of memory that belong to a process alone."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel tells no anonymous memory")


def mounted(*directories: str) -> set[str]:
    """Return the mounts below our directories. Other tests mount and unmount elsewhere meanwhile."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line for line in lines if any(each in line for each in directories)}


def containers(served: Served, engine_at: str) -> list[str]:
    """Return what is left of containers: they themselves, or the directories that the engine oci keeps for them."""
    if engine_at == engines.OCI:
        return [each.name for each in (served.config.parent / "oci").iterdir() if each.is_dir()]
    labels = ["--filter", f"label=spoold.spool={served.spool}"]
    command = ["docker", "--host", engine_at, "ps", "--all", "--quiet", *labels]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
