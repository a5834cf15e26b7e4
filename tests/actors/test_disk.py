"""The spool's disk is full or read-only while jobs run. They end once the disk is well again, and none is blamed."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold.config import ShareSettings
from spoold.upkeep import floor
from tests.actors.bench import Bench, settings_for


@pytest.fixture
def bench(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("spoold.actors.executor.slots.BACK_OFF", 0.05)
    monkeypatch.setattr("spoold.spool.holding.BACK_OFF", 0.05)
    monkeypatch.setattr(floor.Floor, "reached", lambda _: False)
    most = ShareSettings(bytes=1 << 40, entries=1 << 40)  # two of the answers take more than a quarter of the disk
    made = Bench(small_disk, settings_for(small_disk, share=most))
    made.drop("warm")
    made.wait_for("warm")
    made.sandbox.gate.clear()
    for id_ in ("a", "b", "c"):
        made.drop(id_, "head -c 100000 /dev/zero")
    made.until(lambda: len(made.sandbox.jobs) == 3, made.executor.step)  # all claimed entries are held by now
    yield made
    made.close()


def test_a_disk_that_is_full_when_results_are_written(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    ballast = bench.root / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    bench.sandbox.gate.set()
    bench.until(lambda: len(bench.sandbox.jobs) > 6, bench.executor.step)  # they find the disk full and go back
    assert bench.names("done") == {"warm.json", "warm.response.json"}
    ballast.unlink()
    bench.wait_for("a", "b", "c")
    all_is_well(bench)


def test_a_disk_that_is_read_only_when_results_are_written(bench: Bench) -> None:
    read_only = ["mount", "-o", "remount,ro", str(bench.root)]
    # A remount fails while a file is open for writing, and the side file of a running job may be.
    bench.until(lambda: subprocess.run(read_only, capture_output=True, check=False).returncode == 0, lambda: None)
    bench.sandbox.gate.set()
    try:
        for _ in range(20):
            with contextlib.suppress(OSError):  # the daemon would log this and go on
                bench.executor.step()
            with contextlib.suppress(OSError):
                bench.health.step()
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(bench.root)], check=True)

    def look() -> None:
        bench.health.step()
        bench.executor.step()

    bench.until(lambda: all(bench.has("done", f"{id_}.response.json") for id_ in "abc"), look)
    all_is_well(bench)


def all_is_well(bench: Bench) -> None:
    for id_ in "abc":
        response = bench.response(id_)
        assert (response["status"], response["run"]["stdout_bytes"]) == ("COMPLETED", 100_000)
    bench.assert_nothing_is_left()
