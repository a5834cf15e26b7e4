"""Where a spool is made, again and again, by tests that end its actors at any instant."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.world import MEMORY, one_thread


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory, one_thread():
        yield Path(directory, "spool")
