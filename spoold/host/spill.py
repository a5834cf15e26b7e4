"""Bytes that are kept for a while: in memory as long as they are few, then in a file without a name.

So data from elsewhere takes no more than ``MOST`` bytes of memory, and nothing is left when this process is killed.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator

MOST = 1 << 20  # bytes in memory
PIECE = 1 << 18  # bytes that are read at once


class Spill:
    """Bytes that can be added, and read from any place. When they become many, they move to a file in ``directory``.

    Some file systems have no files without a name. There the file has one for a moment, which ends with ``suffix``.
    """

    def __init__(self, directory: str, suffix: str) -> None:
        self._directory, self._suffix = directory, suffix
        self._few = bytearray()
        self._file = -1
        self._forget: weakref.finalize[..., Spill] | None = None
        self.size = 0

    def add(self, data: bytes) -> None:
        """Add bytes; raises OSError where there is no room for them."""
        if self._file < 0 and self.size + len(data) > MOST:
            self._make_file()
        if self._file < 0:
            self._few += data
        else:
            self._write(data)
        self.size += len(data)

    def _make_file(self) -> None:
        with tempfile.TemporaryFile(buffering=0, dir=self._directory or None, suffix=self._suffix) as made:
            self._file = os.dup(made.fileno())
        self._forget = weakref.finalize(self, os.close, self._file)
        self._write(self._few)
        self._few = bytearray()

    def _write(self, data: bytes | bytearray) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def cut(self, size: int) -> None:
        """Forget what comes after the first ``size`` bytes."""
        if self._file < 0:
            del self._few[size:]
        else:
            os.ftruncate(self._file, size)
            os.lseek(self._file, size, os.SEEK_SET)
        self.size = size

    def pieces(self, at: int, size: int) -> Iterator[bytes]:
        """Yield ``size`` bytes from ``at``. Raise :class:`EOFError` where some are missing, as all are once closed."""
        end = at + size
        while at < end:
            most = min(PIECE, end - at)
            piece = bytes(self._few[at : at + most]) if self._file < 0 else os.pread(self._file, most, at)
            if not piece:
                raise EOFError(f"{end - at} bytes are missing from a temporary file")
            yield piece
            at += len(piece)

    def close(self) -> None:
        """Forget all. May be repeated."""
        self._few = bytearray()
        self._file = -1  # the number of the descriptor may be another file's by now
        if self._forget:
            self._forget()
