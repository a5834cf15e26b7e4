"""What compile.sh left, outside of any container: an archive that supervisors make and lay, and nobody else reads."""

from __future__ import annotations

import contextlib
import mmap
import tempfile
from types import TracebackType
from typing import Self

from spoold.model.errors import TemporaryError
from spoold.sandbox.stream import Stream

SMALL = 1024 * 1024  # bytes that are kept in memory; what is larger is in a file
PIECE = 1024 * 1024


class Archive:
    """Holds one archive, until it is closed; empty until one is received. ``size`` is its bytes."""

    def __init__(self) -> None:
        self.size = 0
        self._data: bytes | mmap.mmap = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def receive(self, stream: Stream, size: int, deadline: float) -> None:
        """Take ``size`` bytes from a stream; raises what it does, and where the disk is in the way TemporaryError."""
        if size <= SMALL:
            self._data = stream.take(size, deadline)
        else:
            try:
                self._data = _received(stream, size, deadline)
            except OSError as error:
                raise TemporaryError(f"there is no room for what compile.sh left: {error}") from error
        self.size = size

    def content(self) -> bytes | memoryview:
        """Return the bytes, to be sent."""
        return self._data if isinstance(self._data, bytes) else memoryview(self._data)

    def close(self) -> None:
        """Let go of it. A view of it that somebody still holds keeps it until that goes too."""
        if isinstance(self._data, mmap.mmap):
            with contextlib.suppress(BufferError):
                self._data.close()
        self._data, self.size = b"", 0


def _received(stream: Stream, size: int, deadline: float) -> mmap.mmap:
    with tempfile.TemporaryFile() as file:
        left = size
        while left:
            left -= file.write(stream.take(min(left, PIECE), deadline))
        file.flush()
        return mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
