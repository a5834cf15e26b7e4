"""Pipes to supervisors that need no engine's framing, see :class:`spoold.sandbox.stream.Pipe`."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from typing import TYPE_CHECKING

from spoold.sandbox.stream import Received

if TYPE_CHECKING:
    from collections.abc import Callable

READ = 1 << 18
END_TIMEOUT = 1.0  # seconds for the last words to arrive


class BothWays:
    """A pipe that is one socket in both directions. Subclasses say how to receive and close."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setblocking(False)

    def reader(self) -> int:
        """Return the descriptor from which the container's output comes; -1 where it is closed."""
        return self._socket.fileno()

    def writer(self) -> int:
        """Return the descriptor to which the container's input goes; -1 where it is closed."""
        return self._socket.fileno()

    def send(self, data: memoryview) -> int:
        """Send some of ``data``; return how many bytes were sent."""
        return self._socket.send(data[:READ])


class WithLastWords(BothWays):
    """A pipe whose program sends its stderr another way. That is read once the socket has ended."""

    def receive(self) -> Received | None:
        """Return what has come by now, None at the end. Before the end comes what the program wrote to its stderr."""
        data = self._socket.recv(READ)
        if data:
            return Received(data, b"")
        said = self._last_words()
        return Received(b"", said) if said else None

    def _last_words(self) -> bytes:
        raise NotImplementedError


def read_to_the_end(descriptor: int, more: Callable[[], bytes | bytearray | None]) -> bytes:
    """Return all that ``more`` returns until it returns None. It is called whenever ``descriptor`` can be read."""
    said, deadline = bytearray(), time.monotonic() + END_TIMEOUT
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    with contextlib.suppress(OSError):
        while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            found = more()
            if found is None:
                break
            said += found
    return bytes(said)


class Direct(WithLastWords):
    """A socket as a program's stdin and stdout, and a pipe as its stderr."""

    def __init__(self, connection: socket.socket, stderr: int) -> None:
        super().__init__(connection)
        self._stderr = stderr

    def _last_words(self) -> bytes:
        return read_to_the_end(self._stderr, lambda: os.read(self._stderr, READ) or None) if self._stderr >= 0 else b""

    def close(self) -> None:
        """Close both. The program takes that as the order to stop."""
        with contextlib.suppress(OSError):
            self._socket.close()
        stderr, self._stderr = self._stderr, -1
        if stderr >= 0:
            os.close(stderr)
