"""The host's end of the pipes to a supervisor: messages over Docker's attached stream.

Docker cuts what the container writes into frames (one byte: 1 stdout, 2 stderr; three zeros; a 4-byte length). Messages
are on stdout; stderr is diagnostics, of which the end is kept for error messages. What comes back is only ever decoded
into typed messages of bounded size: a supervisor that says anything else is treated as gone.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from typing import Any

from spoold.model.errors import TemporaryError
from spoold.sandbox import RunCancelledError
from spoold.sandbox.inside import wire
from spoold.sandbox.inside.messages import Broken, Message, parse_any

MAX_DIAGNOSTICS = 4096
ATTENTION = 0.2  # seconds between looks at the caller's event
READ = 1 << 18


class ClosedError(TemporaryError):
    """The stream ended or was garbage before the message that was due."""


class BrokenError(Exception):
    """A bug of ours on the other side of the stream: what was raised there, and where."""


def text(said: bytes) -> str:
    """Return what a supervisor said, to be read by people."""
    return said.decode("utf-8", "replace")


def unlimited(reason: bytes) -> TemporaryError:
    """Return what is raised where a job cannot be kept from seeing more of the store than it may."""
    return TemporaryError(f"the store of the sandbox cannot be limited to what the job may see: {text(reason)}")


class Channel:
    """One attached container; used by one thread."""

    def __init__(self, attached: Any, cancelled: threading.Event) -> None:
        self._attached = attached
        self._socket: socket.socket = getattr(attached, "_sock", attached)  # the SDK wraps plain sockets in a SocketIO
        self._socket.setblocking(False)
        self.cancelled = cancelled
        self._raw = bytearray()
        self._stdout = bytearray()
        self._stderr = bytearray()

    def send(self, parts: list[bytes], patience: float) -> None:
        """Send ``parts``, or until the supervisor speaks: it does so only to refuse. ``patience`` is seconds."""
        deadline = time.monotonic() + patience
        for part in parts:
            view = memoryview(part)
            while view:
                if self._wait(deadline, select.POLLIN | select.POLLOUT) & select.POLLIN:
                    self._receive(deadline)
                if self._stdout:
                    return
                try:
                    view = view[self._socket.send(view[:READ]) :]
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise ClosedError(f"cannot send to the sandbox: {error.strerror}") from error

    def message(self, patience: float, *expected: type[Message]) -> Message:
        """Return the next message, which must be one of those expected; raises :class:`BrokenError` for a bug of ours.

        And :class:`ClosedError` for anything else.
        """
        deadline = time.monotonic() + patience
        size = int.from_bytes(self.take(4, deadline), "big")
        if size > wire.MOST:
            raise ClosedError(f"the supervisor sent garbage{self.diagnostics()}")
        try:
            found = parse_any(wire.decode(self.take(size, deadline)), *expected, Broken)
        except ValueError as error:
            raise ClosedError(f"the supervisor sent garbage: {error}{self.diagnostics()}") from error
        if isinstance(found, Broken):
            raise BrokenError(text(found.story))
        return found

    def take(self, size: int, deadline: float) -> bytes:
        """Return exactly ``size`` bytes of the supervisor's stdout."""
        while len(self._stdout) < size:
            self._receive(deadline)
        data = bytes(self._stdout[:size])
        del self._stdout[:size]
        return data

    def _receive(self, deadline: float) -> None:
        self._wait(deadline, select.POLLIN)
        self._receive_what_is_there()

    def _receive_what_is_there(self) -> None:
        try:
            data = self._socket.recv(READ)
        except BlockingIOError:
            return
        except OSError as error:
            raise ClosedError(f"cannot read from the sandbox: {error.strerror}{self.diagnostics()}") from error
        if not data:
            raise ClosedError(f"the sandbox ended before its time{self.diagnostics()}")
        self._raw += data
        while len(self._raw) >= 8:
            end = 8 + int.from_bytes(self._raw[4:8], "big")
            if len(self._raw) < end:
                break
            if self._raw[0] == 1:
                self._stdout += self._raw[8:end]
            else:
                self._stderr = (self._stderr + self._raw[8:end])[-MAX_DIAGNOSTICS:]
            del self._raw[:end]

    def _wait(self, deadline: float, events: int) -> int:
        if self._socket.fileno() < 0:
            raise ClosedError(f"the sandbox is closed{self.diagnostics()}")
        poll = select.poll()
        poll.register(self._socket, events)
        while True:
            if self.cancelled.is_set():
                raise RunCancelledError("cancelled")
            left = deadline - time.monotonic()
            if left <= 0:
                raise ClosedError(f"the sandbox does not answer{self.diagnostics()}")
            for _, seen in poll.poll(min(left, ATTENTION) * 1000):
                return seen

    def arrived(self, expected: type[Message]) -> Message | None:
        """Return the next message if it is there; wait for nothing. It must be the one expected."""
        self._receive_what_is_there()
        if len(self._stdout) < 4 or len(self._stdout) < 4 + int.from_bytes(self._stdout[:4], "big"):
            return None
        return self.message(0.0, expected)

    def silent(self) -> bool:
        """Tell whether the stream is open and nothing has come."""
        poll = select.poll()
        try:
            poll.register(self._socket, select.POLLIN)
            return not self._stdout and not poll.poll(0)
        except (OSError, ValueError):  # it is closed
            return False

    def diagnostics(self) -> str:
        """Return the end of what the supervisor wrote to its stderr, as one escaped suffix of an error message."""
        text = bytes(self._stderr).decode("utf-8", "replace").strip()
        return f"; its last words: {text[-500:]!r}" if text else ""

    def close(self) -> None:
        """Close the stream; the supervisor takes that as the order to stop."""
        with contextlib.suppress(OSError):
            self._attached.close()
        with contextlib.suppress(OSError):
            self._socket.close()
