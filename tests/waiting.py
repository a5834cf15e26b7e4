"""Waiting for a condition, never for a time: what is slow makes a test slow, and does not fail it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator

from tests.engines import SLOWNESS

PATIENCE = 100.0 * SLOWNESS  # seconds; much, since a disk may be busy with something else


def until(condition: Callable[[], object], otherwise: Callable[[], str] = lambda: "waited in vain") -> None:
    """Return when it is so; fail with what ``otherwise`` says when it does not come about."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.02)


@contextlib.contextmanager
def ending(pid: int) -> Iterator[None]:
    """Wait, after the block, until a process has ended that is no child of ours. One that nobody reaps has ended too.

    Its number may be another's as soon as it is reaped, so it is looked at by a descriptor from before the block.
    """
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        yield
        return
    try:
        yield
        poll = select.poll()
        poll.register(process, select.POLLIN)
        assert poll.poll(PATIENCE * 1000), f"process {pid} does not end"
    finally:
        os.close(process)


def end(pid: int, number: int = signal.SIGTERM) -> None:
    """Send a signal to a process that is no child of ours, and wait until it has ended."""
    with ending(pid), contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
