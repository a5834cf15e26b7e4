"""Waiting for a condition, never for a time: what is slow makes a test slow, and does not fail it."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.engines import SLOWNESS

PATIENCE = 100.0 * SLOWNESS  # seconds; much, since a disk may be busy with something else


def until(condition: Callable[[], object], otherwise: Callable[[], str] = lambda: "waited in vain") -> None:
    """Return when it is so; fail with what ``otherwise`` says when it does not come about."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.02)
