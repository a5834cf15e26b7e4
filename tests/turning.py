"""A bench whose actors run by themselves, for clients that wait: stand-in engines, one process."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spoold.cli import exits
from tests.actors.bench import Bench
from tests.patient import PATIENT


class TurningBench(Bench):
    """A bench whose actors run in a thread. A test that holds ``turning`` halts them, and may write files in parts."""

    def __init__(self, root: Path) -> None:
        self.turning = threading.RLock()
        super().__init__(root)

    def step(self) -> None:
        with self.turning:
            super().step()

    def drop_bytes(self, id_: str, data: bytes) -> None:
        with self.turning:
            super().drop_bytes(id_, data)


@contextmanager
def turning(root: Path) -> Iterator[TurningBench]:
    """Yield a bench over the spool ``root`` whose actors run by themselves."""
    made = TurningBench(root)
    stop = threading.Event()

    def turn() -> None:
        while not stop.wait(0.02):
            with made.turning:
                made.intake.step()
                made.step()

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        yield made
    finally:
        stop.set()
        thread.join()
        made.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[TurningBench]:
    """Yield a bench whose actors run by themselves."""
    with turning(tmp_path / "spool") as made:
        yield made


def ctl(bench: Bench, *arguments: str, code: int = exits.OK, width: str = "100") -> str:
    """Run spoolctl as a program and return its output. With ``--json`` return stdout alone."""
    environment = os.environ | {"SPOOLD_SPOOL": str(bench.root), "SPOOLD_CONFIG": os.devnull, "COLUMNS": width}
    done = subprocess.run([*PATIENT, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if "--json" in arguments else done.stdout + done.stderr
