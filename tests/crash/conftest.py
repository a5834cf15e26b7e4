"""The place in which tests make a spool again and again, and end its actors at any instant."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.world import MEMORY, one_thread

LONG_TIMEOUT = 3600.0  # seconds for one test of the long version, which takes minutes on an otherwise idle machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests of this directory more time in the long version."""
    for item in items:
        if os.environ.get("SPOOLD_TEST_LONG") and item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(LONG_TIMEOUT))


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory, one_thread():
        yield Path(directory, "spool")
