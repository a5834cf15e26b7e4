"""A bench whose actors go round by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.actors.bench import Bench
from tests.cli.turning import turning


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Yield a bench whose actors go round by themselves."""
    with turning(tmp_path / "spool") as made:
        yield made
