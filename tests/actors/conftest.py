"""All four actors over one spool, and a file system that a test may fill or make read-only."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.actors.bench import Bench

# Limits on the seconds that one step works before the next one is due.
PATIENCES = (
    "intake.LONG",
    "intake.dropbox.LONG",
    "intake.dropbox.LOOKING",
    "executor.pace.LONG",
    "executor.building.LONG",
)


@pytest.fixture
def paced() -> None:
    """Keep the actors' limits on the time of their looks, for tests that set how long a look takes."""


@pytest.fixture(autouse=True)
def unhurried(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let one step look at everything and never rest, even when the machine stands still meanwhile.

    Without this, a step of intake could leave files for the next one or not look again for seconds. The executor could
    do the same.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in () if "paced" in request.fixturenames else PATIENCES:
            patch.setattr(f"spoold.actors.{name}", math.inf)
        yield


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system of 4 MiB and 400 inodes, mounted for this test."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=400", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
