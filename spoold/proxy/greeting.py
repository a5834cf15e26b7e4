"""The first message of a client in a tunnel: for which host it asks, where that message is of TLS.

A server that serves many hosts chooses by the name in this message (SNI, RFC 6066). So a program could ask for a tunnel
to a listed host, and in it for another host at the same address. The name has to be that of the tunnel, then. An
encrypted name (ECH) cannot be compared, so it is refused too. A host that is named only later, inside TLS,
is seen by nobody here: see contrib/docs/threat-model.md.
"""

from __future__ import annotations

HANDSHAKE, CLIENT_HELLO = 22, 1  # the types of a record, and of a message in it
SERVER_NAME, ENCRYPTED_NAME = 0, 0xFE0D  # types of extensions
LARGEST, RECORDS = 16 * 1024, 16  # bytes of the first message, and records that it may be spread over
RECORD = 5  # bytes of a record's head


class DisguiseError(Exception):
    """The message asks for another host than the tunnel, or cannot be understood. The text says which."""


class Greeting:
    """Collects what a client sends in a tunnel to ``host``, until its first message is there as a whole."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._held = b""
        self.is_known = False

    def take(self, data: bytes) -> bytes:
        """Take what the client sent, and return what may be passed on. Raises :class:`DisguiseError`."""
        if self.is_known:
            return data
        self._held += data
        try:
            names = _names(self._held)
        except (IndexError, ValueError) as error:
            raise DisguiseError("the first message of TLS is malformed") from error
        if names is None and len(self._held) > LARGEST:
            raise DisguiseError("the first message of TLS is too long")
        if names is None:
            return b""
        for name in names:
            if name.lower().removesuffix(".") != self._host:
                raise DisguiseError(f"TLS asks for {name[:200]!a} in a tunnel to {self._host}")
        self.is_known = True
        held, self._held = self._held, b""
        return held


class _Bytes:
    """Reads numbers and pieces, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def number(self, size: int) -> int:
        return int.from_bytes(self._piece(size), "big")

    def field(self, size: int) -> bytes:
        """Return a piece whose length stands before it, in ``size`` bytes."""
        return self._piece(self.number(size))

    def skip(self, size: int) -> None:
        self._piece(size)

    def _piece(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        if len(piece) != size:
            raise ValueError("too short")
        self._at += size
        return piece


def _names(data: bytes) -> list[str] | None:
    """Return the hosts that the first message asks for, [] where it is not of TLS, or None where more has to come.

    Raises :class:`ValueError` where it is malformed.
    """
    if not data or data[0] != HANDSHAKE:
        return []
    message = _message(data)
    if len(message) < 4:
        return None
    if message[0] != CLIENT_HELLO:
        return []
    whole = 4 + int.from_bytes(message[1:4], "big")
    return None if len(message) < whole else _asked(_Bytes(message[4:whole]))


def _message(data: bytes) -> bytes:
    """Return what the records at the start of ``data`` hold of the first message, which may be spread over several."""
    message, at = b"", 0
    for _ in range(RECORDS):
        if at + RECORD > len(data) or data[at] != HANDSHAKE:
            return message
        end = at + RECORD + int.from_bytes(data[at + 3 : at + RECORD], "big")
        message += data[at + RECORD : end]
        at = end
    return message


def _asked(hello: _Bytes) -> list[str]:
    """Return the names in a ClientHello (RFC 8446, 4.1.2). Raises what :class:`Greeting` raises."""
    hello.skip(2 + 32)  # the version, and what is random
    for size in (1, 2, 1):  # the session, the ciphers, the ways to compress
        hello.field(size)
    extensions = _Bytes(hello.field(2) if hello else b"")
    found = []
    while extensions:
        kind, content = extensions.number(2), extensions.field(2)
        if kind == ENCRYPTED_NAME:
            raise DisguiseError("TLS encrypts the name that it asks for (ECH); have the program send it in clear")
        if kind == SERVER_NAME:
            names = _Bytes(_Bytes(content).field(2))
            while names:
                names.skip(1)  # the type of the name: there is only that of a host
                found.append(names.field(2).decode("ascii"))
    return found
