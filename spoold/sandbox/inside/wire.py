"""The wire between host and supervisor, and the supervisor's end of it.

A message (see ``messages``) is a 4-byte length and that many bytes of bencode (integers, byte strings, lists,
dictionaries): a codec of a few lines that carries any bytes. Raw bytes that a message announces follow it. The host
sends a parcel, then an order per phase. The supervisor says that it is ready, then that each phase is done, or why
there is none. End of the supervisor's stdin at any time means: stop everything and exit.
"""

from __future__ import annotations

import os
import select

from .messages import Message, parse, parse_any

TYPE_CHECKING = False  # importing typing takes too long here
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .messages import Some

CHUNK = 65536
MOST = 64 * 1024**2  # bytes of a message, in both directions
STALL_TIMEOUT = 60.0  # seconds without progress on the host's side of a message


class GoneError(Exception):
    """The host's side of stdin or stdout is closed or stuck: nobody is left to report to."""


def encode(value: object) -> bytes:
    """Return ``value`` (int, str, bytes, list, dict with str keys) in bencode."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%b" % (len(value), value)
    if isinstance(value, list):
        return b"l%be" % b"".join(map(encode, value))
    if isinstance(value, dict):
        return b"d%be" % b"".join(encode(key) + encode(value[key]) for key in sorted(value))
    raise TypeError(type(value))


def decode(data: bytes, depth: int = 8) -> object:
    """Return the one value in ``data``, with str keys and bytes for strings; raise ValueError for anything else."""
    value, end = _decode(data, 0, depth)
    if end != len(data):
        raise ValueError("more than one value")
    return value


def _decode(data: bytes, at: int, depth: int) -> tuple[object, int]:
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.index(b"e", at, at + 24)
        return int(data[at + 1 : end]), end + 1
    if kind.isdigit():
        colon = data.index(b":", at, at + 12)
        end = colon + 1 + int(data[at:colon])
        if end > len(data):
            raise ValueError("a string is cut off")
        return data[colon + 1 : end], end
    if kind not in (b"l", b"d") or depth == 0:
        raise ValueError("not bencode")
    items: list[object] = []
    at += 1
    while data[at : at + 1] != b"e":
        item, at = _decode(data, at, depth - 1)
        items.append(item)
    if kind == b"l":
        return items, at + 1
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}, at + 1


def _key(key: object) -> str:
    if not isinstance(key, bytes):
        raise ValueError("a key is not a string")
    return key.decode()


def frame(message: Message) -> bytes:
    """Return ``message`` as it goes over the wire."""
    body = encode(message.value())
    if len(body) > MOST:
        raise ValueError("message too long")
    return len(body).to_bytes(4, "big") + body


class Host:
    """The two pipes to the host; every wait on them is bounded but the one for the first byte of a message."""

    def __init__(self) -> None:
        for descriptor in (0, 1):
            os.set_blocking(descriptor, False)
        self.poll_in = select.poll()
        self.poll_in.register(0, select.POLLIN)
        self.poll_out = select.poll()
        self.poll_out.register(1, select.POLLOUT)

    def send(self, message: Message, *raw: bytearray) -> None:
        """Send ``message`` and the raw bytes that it announces."""
        parts: tuple[bytes | bytearray, ...] = (frame(message), *raw)
        for part in parts:
            view = memoryview(part)
            while view:
                try:
                    view = view[os.write(1, view[:CHUNK]) :]
                except BlockingIOError:
                    if not self.poll_out.poll(STALL_TIMEOUT * 1000):
                        raise GoneError from None
                except OSError:
                    raise GoneError from None

    def message(self, expected: type[Some]) -> Some:
        """Wait for the next message, which must be the one expected."""
        return parse(self._value(), expected)

    def any_of(self, *expected: type[Message]) -> Message:
        """Wait for the next message, which must be one of those expected."""
        return parse_any(self._value(), *expected)

    def _value(self) -> object:
        self.poll_in.poll()
        size = int.from_bytes(b"".join(self.raw(4)), "big")
        if size > MOST:
            raise ValueError("message too long")
        return decode(b"".join(self.raw(size)))

    def raw(self, size: int) -> Iterator[bytes]:
        """Yield the next ``size`` bytes in pieces, so that no copy of a whole file is ever held."""
        while size:
            try:
                piece = os.read(0, min(size, CHUNK))
            except BlockingIOError:
                if not self.poll_in.poll(STALL_TIMEOUT * 1000):
                    raise GoneError from None
                continue
            if not piece:
                raise GoneError
            size -= len(piece)
            yield piece
