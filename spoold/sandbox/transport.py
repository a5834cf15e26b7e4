"""What an engine provides to carry a job: one sandbox that it made and started.

An engine is a folder in ``engines``. It makes sandboxes, and this is all that other modules need to know of one. The
runner sends a job through its stream. The pool keeps some ready.
"""

from __future__ import annotations

from typing import Protocol

from spoold.model.errors import TemporaryError
from spoold.sandbox.sizes import Size
from spoold.sandbox.stream import Stream


class UnusableError(TemporaryError):
    """The sandbox is gone, or its state is unknown. Another sandbox may do."""


class Transport(Protocol):
    """One sandbox, whose supervisor has said that it is ready.

    ``size`` is what it may take now. ``cpu`` is the only CPU that it runs on, or None. ``pid`` is its first process, as
    the engine's host counts. Raises ``TemporaryError`` where the engine does not do what it is told.
    """

    size: Size
    cpu: int | None
    pid: int

    @property
    def stream(self) -> Stream:
        """Return the stream to its supervisor."""

    def resize(self, size: Size) -> None:
        """Give the sandbox another size. All that runs in it goes on."""

    def pin(self, cpu: int) -> None:
        """Bind all of it to one CPU."""

    def lacked_memory(self) -> bool:
        """Tell whether it ended for want of memory. The engine may learn of that a little late."""

    def stop(self) -> None:
        """End all that runs in it. Its supervisor takes the end of the stream as the order to stop."""

    def close(self) -> None:
        """Stop and remove it. Errors of the engine are not raised."""
