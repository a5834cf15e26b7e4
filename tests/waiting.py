"""Wait for a condition, never for a time: a slow machine makes a test slow, but does not fail it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator

from tests.engines import SLOWNESS

PATIENCE = 100.0 * SLOWNESS  # seconds: many, because a disk may be busy with something else


def until(condition: Callable[[], object], otherwise: Callable[[], str] = lambda: "waited in vain") -> None:
    """Return when the condition holds. Fail with the text of ``otherwise`` when it doesn't come about."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.02)


@contextlib.contextmanager
def ending(pid: int) -> Iterator[None]:
    """After the block, wait until a process that is not our child has ended.

    A zombie that nobody reaps counts as ended.

    Its number may go to another process as soon as it is reaped. So it is watched by a descriptor that is opened before
    the block.
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
    """Send a signal to a process that is not our child, and wait until it has ended."""
    with ending(pid), contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
