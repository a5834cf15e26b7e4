"""A bench whose actors go round by themselves, for clients that wait: stand-in engines, one process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.actors.bench import Bench


class TurningBench(Bench):
    """A bench whose actors a thread turns; a test's own steps are no others at the same time."""

    def __init__(self, root: Path) -> None:
        self.turning = threading.RLock()
        super().__init__(root)

    def step(self) -> None:
        with self.turning:
            super().step()

    def drop_bytes(self, id_: str, data: bytes) -> None:
        with self.turning:
            super().drop_bytes(id_, data)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Return a bench whose actors go round by themselves."""
    made = TurningBench(tmp_path / "spool")
    stop = threading.Event()

    def turn() -> None:
        while not stop.wait(0.02):
            with made.turning:
                made.intake.step()
                made.step()

    turning = threading.Thread(target=turn)
    turning.start()
    yield made
    stop.set()
    turning.join()
    made.close()
