"""Records for systemd-journald in its native protocol. It indexes them: ``journalctl SPOOLD_SUBMISSION=alice-1``.

A record is one datagram of fields (systemd.io/JOURNAL_NATIVE_PROTOCOL). A field is ``NAME=value`` and a newline. Where
the value has a newline of its own, the field is its name, the value's length in 8 bytes, and the value's bytes. So no
value can end early and be taken for another field, whatever clients call their files. Names of fields come from our
code, never from clients.

Long values are cut. So a datagram stays far below what a socket takes (200 KiB), and none has to be sent as a file. A
record that journald does not take, since it is away or full, goes to stderr.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
from collections.abc import Iterable

SOCKET = "/run/systemd/journal/socket"
LONGEST = 16 * 1024  # bytes of a value


def is_stderr() -> bool:
    """Tell whether stderr is journald's (systemd.exec(5), $JOURNAL_STREAM), and was not redirected since."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM", "") == f"{found.st_dev}:{found.st_ino}"


class JournalHandler(logging.Handler):
    """Sends records to journald; those that it does not take go to ``otherwise``. ``formatter`` makes the MESSAGE."""

    def __init__(
        self,
        formatter: logging.Formatter,
        otherwise: logging.Handler,
        priorities: dict[str, int],
        address: str = SOCKET,
    ) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._otherwise = otherwise
        self._priorities = priorities
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        try:
            self._socket.sendto(datagram(self._fields(record)), self._address)
        except OSError:
            self._otherwise.handle(record)

    def _fields(self, record: logging.LogRecord) -> Iterable[tuple[str, object]]:
        yield "MESSAGE", self.format(record)
        yield "PRIORITY", self._priorities[record.levelname]
        yield "SYSLOG_IDENTIFIER", "spoold"
        yield "SPOOLD_ACTOR", record.name.rpartition(".")[2]
        for key, value in getattr(record, "fields", {}).items():
            yield f"SPOOLD_{key.upper()}", value

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()


def datagram(fields: Iterable[tuple[str, object]]) -> bytes:
    """Return a record as journald takes it."""
    return b"".join(_field(name.encode("ascii"), value) for name, value in fields)


def _field(name: bytes, value: object) -> bytes:
    data = str(value).encode(errors="backslashreplace")[:LONGEST]
    if b"\n" not in data:
        return b"%s=%s\n" % (name, data)
    return b"%s\n%s%s\n" % (name, struct.pack("<Q", len(data)), data)
