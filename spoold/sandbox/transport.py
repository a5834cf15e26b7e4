"""What an engine carries a job with: one sandbox that it made and started.

An engine is a folder in ``engines``. It makes sandboxes, and this is all that the rest needs to know of one: the runner
sends a job through its stream, the pool keeps some that wait.
"""

from __future__ import annotations

from typing import Protocol

from spoold.model.errors import TemporaryError
from spoold.sandbox.sizes import Size
from spoold.sandbox.stream import Stream


class UnusableError(TemporaryError):
    """The sandbox is gone, or in a state that nobody knows; another may do."""


class Transport(Protocol):
    """One sandbox, whose supervisor has said that it is ready. ``size`` is what it may take now, ``cpu`` the
    only one that it runs on, if it is one, and ``pid`` its first process, as the engine's host counts.

    Raises ``TemporaryError`` where the engine does not do what it is told.
    """

    size: Size
    cpu: int | None
    pid: int

    @property
    def stream(self) -> Stream:
        """Return the stream to its supervisor."""

    def resize(self, size: Size) -> None:
        """Give it another size; whatever runs in it goes on."""

    def pin(self, cpu: int) -> None:
        """Have all of it run on one CPU only."""

    def lacked_memory(self) -> bool:
        """Tell whether it ended for want of memory. The engine may learn of that a little late."""

    def stop(self) -> None:
        """End all that runs in it: to its supervisor the end of the stream is the order to stop."""

    def close(self) -> None:
        """Stop and remove it; never raises what an engine raises."""
