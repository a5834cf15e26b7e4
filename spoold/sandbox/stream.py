"""The host's end of the stream to a supervisor: messages, over whatever pipe an engine has.

Messages come on the supervisor's stdout. Its stderr is diagnostics, and the end of these is kept for error messages.
All that comes on stdout is decoded into typed messages of bounded size, and used in no other way. A supervisor that
says anything else is treated as gone.
"""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from spoold.model.errors import TemporaryError
from spoold.sandbox import RunCancelledError, wire
from spoold.sandbox.messages import VERSION, Broken, Failed, Message, Ready, parse_any

MAX_DIAGNOSTICS = 4096
AT_ONCE = 64 * 1024  # bytes up to which small parts are sent together
ATTENTION = 0.2  # seconds between looks at the caller's event


class ClosedError(TemporaryError):
    """The stream ended or was garbage before the message that was due."""


class RefusedError(TemporaryError):
    """The kernel or the engine lacks what was asked of it, or does not allow it."""


class BrokenError(Exception):
    """A bug of ours on the other side of the stream: the error, and where it was raised."""


def text(said: bytes) -> str:
    """Return what a supervisor said as text for people."""
    return said.decode("utf-8", "replace")


def unlimited(failed: Failed) -> TemporaryError:
    """Return the error for a job that cannot be kept from seeing more of the store than it may."""
    kind = RefusedError if failed.refused else TemporaryError
    return kind(f"the store of the sandbox cannot be limited to what the job may see: {text(failed.reason)}")


class Received(NamedTuple):
    """What has come on a supervisor's two streams."""

    stdout: bytes | bytearray
    stderr: bytes | bytearray


class Pipe(Protocol):
    """Bytes to a supervisor and from it, as an engine carries them.

    No call blocks. ``send`` and ``receive`` raise ``BlockingIOError`` where they would block, and ``OSError`` where the
    pipe is broken. Both descriptors are polled. They may be the same.
    """

    def reader(self) -> int:
        """Return the descriptor from which the supervisor's output comes; -1 where it is closed."""

    def writer(self) -> int:
        """Return the descriptor to which the supervisor's input goes; -1 where it is closed."""

    def send(self, data: memoryview) -> int:
        """Send some of ``data``; return how many bytes were sent."""

    def receive(self) -> Received | None:
        """Return what has come by now, None at the end."""

    def close(self) -> None:
        """Close the pipe. The supervisor takes that as the order to stop."""


class Stream:
    """The messages over one pipe. One thread uses it, but for ``pass_on``."""

    def __init__(self, pipe: Pipe, cancelled: threading.Event) -> None:
        self._pipe = pipe
        self.cancelled = cancelled
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._sending = threading.Lock()

    def send(self, parts: Iterable[bytes], patience: float, *, regardless: bool = False) -> None:
        """Send ``parts``. Stop once the supervisor speaks, which it does only to refuse. ``patience`` is seconds.

        With ``regardless`` they are sent even then, since the supervisor may be reporting a phase on the way.
        """
        deadline = time.monotonic() + patience
        with self._sending:
            for part in _joined(parts):
                view = memoryview(part)
                while view:
                    if self._wait(deadline, to_send=True):
                        self._receive_what_is_there()
                    if self._stdout and not regardless:
                        return
                    view = self._send_some(view)

    def pass_on(self, data: bytes, patience: float) -> None:
        """Send a whole message from any thread, and receive nothing. The supervisor reads it while its phase runs."""
        deadline = time.monotonic() + patience
        with self._sending:
            view = self._send_some(memoryview(data))
            while view:
                writer = self._pipe.writer()
                left = deadline - time.monotonic()
                if writer < 0 or left <= 0:
                    raise ClosedError("the sandbox takes nothing more")
                poll = select.poll()
                poll.register(writer, select.POLLOUT)
                poll.poll(min(left, ATTENTION) * 1000)
                view = self._send_some(view)

    def _send_some(self, view: memoryview) -> memoryview:
        """Send what the pipe takes now; return the rest."""
        try:
            return view[self._pipe.send(view) :]
        except BlockingIOError:
            return view
        except OSError as error:
            raise ClosedError(f"cannot send to the sandbox: {error.strerror}") from error

    def greeting(self, patience: float) -> Ready:
        """Return the message by which a program says that it waits.

        Raises :class:`ClosedError` also where the program speaks another version of the wire.
        """
        ready = self.message(patience, Ready)
        assert isinstance(ready, Ready)  # noqa: S101 - for mypy: nothing else was expected
        if ready.version != VERSION:
            raise ClosedError(
                f"its supervisor speaks version {ready.version} of the protocol, and this executor version {VERSION}"
            )
        return ready

    def message(self, patience: float, *expected: type[Message]) -> Message:
        """Return the next message, which must be one of those expected.

        Raises :class:`BrokenError` for a bug of ours, and :class:`ClosedError` for anything else. Where the caller's
        event ends the wait, nothing of the message is taken.
        """
        deadline = time.monotonic() + patience
        self._await(4, deadline)
        size = int.from_bytes(self._stdout[:4], "big")
        if size > wire.MOST:
            raise ClosedError(f"the supervisor sent garbage{self.diagnostics()}")
        try:
            found = parse_any(wire.decode(self.take(4 + size, deadline)[4:]), *expected, Broken)
        except ValueError as error:
            raise ClosedError(f"the supervisor sent garbage: {error}{self.diagnostics()}") from error
        if isinstance(found, Broken):
            raise BrokenError(text(found.story))
        return found

    def is_due(self, patience: float) -> bool:
        """Wait ``patience`` seconds at most; tell whether there is something to do: a message or a cancel.

        Raises :class:`ClosedError` at the end of the stream.
        """
        reader = self._pipe.reader()
        if self._stdout or self.cancelled.is_set() or reader < 0:
            return True
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        if poll.poll(patience * 1000):
            self._receive_what_is_there()
        return bool(self._stdout)

    def take(self, size: int, deadline: float) -> bytes:
        """Return exactly ``size`` bytes of the supervisor's stdout."""
        self._await(size, deadline)
        data = bytes(self._stdout[:size])
        del self._stdout[:size]
        return data

    @contextlib.contextmanager
    def heedless(self) -> Iterator[None]:
        """Ignore the caller's event inside the block, to wait for something that soon comes or is soon given up."""
        cancelled, self.cancelled = self.cancelled, threading.Event()
        try:
            yield
        finally:
            self.cancelled = cancelled

    def _await(self, size: int, deadline: float) -> None:
        while len(self._stdout) < size:
            self._wait(deadline)
            self._receive_what_is_there()

    def _receive_what_is_there(self) -> None:
        try:
            found = self._pipe.receive()
        except BlockingIOError:
            return
        except OSError as error:
            raise ClosedError(f"cannot read from the sandbox: {error.strerror}{self.diagnostics()}") from error
        if found is None:
            raise ClosedError(f"the sandbox ended before its time{self.diagnostics()}")
        self._stdout += found.stdout
        self._stderr = (self._stderr + found.stderr)[-MAX_DIAGNOSTICS:]

    def _wait(self, deadline: float, *, to_send: bool = False) -> bool:
        """Wait until something has come, or can be sent; tell whether something has come."""
        reader, writer = self._pipe.reader(), self._pipe.writer()
        if min(reader, writer) < 0:
            raise ClosedError(f"the sandbox is closed{self.diagnostics()}")
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        if to_send:
            poll.register(writer, select.POLLOUT | (select.POLLIN if writer == reader else 0))
        while True:
            if self.cancelled.is_set():
                raise RunCancelledError("cancelled")
            left = deadline - time.monotonic()
            if left <= 0:
                raise ClosedError(f"the sandbox does not answer{self.diagnostics()}")
            if seen := poll.poll(min(left, ATTENTION) * 1000):
                return any(number == reader and events & ~select.POLLOUT for number, events in seen)

    def arrived(self, expected: type[Message]) -> Message | None:
        """Return the next message if it is there, else None, without waiting. It must be of the ``expected`` type."""
        self._receive_what_is_there()
        if len(self._stdout) < 4 or len(self._stdout) < 4 + int.from_bytes(self._stdout[:4], "big"):
            return None
        return self.message(0.0, expected)

    def silent(self) -> bool:
        """Tell whether the stream is open and nothing has come."""
        poll = select.poll()
        try:
            poll.register(self._pipe.reader(), select.POLLIN)
            return not self._stdout and not poll.poll(0)
        except (OSError, ValueError):  # the pipe is closed
            return False

    def diagnostics(self) -> str:
        """Return the end of the supervisor's stderr, as one escaped suffix of an error message."""
        text = bytes(self._stderr).decode("utf-8", "replace").strip()
        return f"; its last words: {text[-500:]!r}" if text else ""

    def close(self) -> None:
        """Close the pipe. The supervisor takes that as the order to stop."""
        self._pipe.close()


def _joined(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield ``parts`` with small ones joined, since each part wakes up the other side."""
    small = bytearray()
    for part in parts:
        if small and len(small) + len(part) > AT_ONCE:
            yield bytes(small)
            small.clear()
        if len(part) > AT_ONCE:
            yield part
        else:
            small += part
    if small:
        yield bytes(small)
