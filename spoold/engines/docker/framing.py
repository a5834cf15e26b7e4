"""Docker's attached stream, split into the two streams that a container writes.

Docker cuts what the container writes into frames: one byte (1 for stdout, 2 for stderr), three zeros, a 4-byte length,
and then the bytes. See "Attach to a container" in the description of its API.
"""

from __future__ import annotations

import contextlib
from typing import Any

from spoold.sandbox.pipes import READ, BothWays
from spoold.sandbox.stream import Received


class Attached(BothWays):
    """The pipe to an attached container."""

    def __init__(self, attached: Any) -> None:
        super().__init__(getattr(attached, "_sock", attached))  # the SDK wraps plain sockets in a SocketIO
        self._attached = attached
        self._raw = bytearray()

    def receive(self) -> Received | None:
        """Return what has come by now, None at the end."""
        data = self._socket.recv(READ)
        if not data:
            return None
        self._raw += data
        stdout, stderr = bytearray(), bytearray()
        while len(self._raw) >= 8:
            end = 8 + int.from_bytes(self._raw[4:8], "big")
            if len(self._raw) < end:
                break
            (stdout if self._raw[0] == 1 else stderr).extend(self._raw[8:end])
            del self._raw[:end]
        return Received(stdout, stderr)

    def close(self) -> None:
        """Close it. The supervisor takes that as the order to stop."""
        with contextlib.suppress(OSError):
            self._attached.close()
        with contextlib.suppress(OSError):
            self._socket.close()
