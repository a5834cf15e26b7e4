"""The wire between host and supervisor. The supervisor's end is ``inside/wire.c``.

A message (see ``messages``) is a 4-byte length and that many bytes of bencode (integers, byte strings, lists,
dictionaries). That is a codec of a few lines, and it carries any bytes. Raw bytes that a message announces follow it.
The host sends a parcel, then an order for each phase. The supervisor says that it is ready. Then it reports the end of
each phase, or why there is none. The end of the supervisor's stdin means at any time: stop everything and exit.
"""

from __future__ import annotations

from spoold.sandbox.messages import Message

MOST = 64 * 1024**2  # bytes of a message, in both directions


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
    """Return the one value in ``data``, with str keys and bytes for strings; raises ValueError for anything else."""
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
