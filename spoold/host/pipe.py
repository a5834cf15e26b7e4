"""What a program prints, in bounded memory."""

from __future__ import annotations

import os
from typing import IO

from spoold.model.response import Stream

CHUNK = 64 * 1024


class Capture:
    """The first ``keep`` bytes of a stream, the last ``tail`` ones where there are more, and the number of all."""

    def __init__(self, pipe: IO[bytes] | None, keep: int, tail: int) -> None:
        assert pipe is not None  # noqa: S101 - Popen made both pipes
        self.fd = pipe.fileno()
        self.pipe = pipe
        self.keep, self.tail = keep, tail
        self.kept, self.last = bytearray(), bytearray()
        self.total = 0
        os.set_blocking(self.fd, False)

    def read(self) -> bool:
        """Take the bytes that are there; return False at the end of the stream."""
        try:
            data = os.read(self.fd, CHUNK)
        except BlockingIOError:
            return True
        room = max(0, self.keep - len(self.kept))
        self.kept += data[:room]
        self.total += len(data)
        if self.tail and len(data) > room:
            self.last = (self.last + data[room:])[-self.tail :]
        return bool(data)

    def stream(self) -> Stream:
        """Return the bytes that were kept. Where the middle of a long stream is missing, a line says so."""
        missing = self.total - len(self.kept) - len(self.last)
        gap = b"\n[%d bytes are left out here]\n" % missing if self.last and missing else b""
        return Stream(bytes(self.kept) + gap + bytes(self.last), self.total)
