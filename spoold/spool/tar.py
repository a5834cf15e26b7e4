"""The returned files of a run in one file: what has no room in a response lies beside it.

Spec: spool-layout.md, "Returned files". A tar that every program reads (POSIX.1-2001, pax): regular files alone, that
belong to nobody and have no times. It is made in pieces, the same ones each time, so it takes little memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from spoold.model.outputs import Returned


class Tar:
    """The tar of what came back, below directories or in none: ``""`` (others end in ``/``).

    ``size`` is in bytes; to iterate over it is to read it.
    """

    def __init__(self, parts: Mapping[str, Returned]) -> None:
        self._parts = parts
        digest, self.size = hashlib.sha256(), 0
        for piece in self:
            digest.update(piece)
            self.size += len(piece)
        self.sha256 = digest.hexdigest()

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        import tarfile  # noqa: PLC0415 - it takes memory in every daemon, and few runs return files

        size = 0
        files = [(place, returned, found) for place, returned in self._parts.items() for found in returned.files]
        for place, returned, found in files:
            head = tarfile.TarInfo(place + found.name)
            head.size, head.mode = found.size, found.mode
            buffer = head.tobuf(tarfile.PAX_FORMAT, "utf-8")
            yield buffer
            yield from returned.contents.pieces(found.at, found.size)
            yield bytes(-found.size % tarfile.BLOCKSIZE)
            size += len(buffer) + found.size + -found.size % tarfile.BLOCKSIZE
        end = 2 * tarfile.BLOCKSIZE
        yield bytes(end + -(size + end) % tarfile.RECORDSIZE)
