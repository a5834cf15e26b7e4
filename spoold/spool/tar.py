"""The returned files of a run in one file. It lies beside a response that has no room for them.

Spec: spool-layout.md, "Returned files". Every program reads such a tar (POSIX.1-2001, pax). It has only regular files,
which belong to nobody and have no times. It is made in pieces, which are the same each time, so it takes little memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from spoold.model.outputs import Returned


class Tar:
    """The tar of returned files. The keys of ``parts`` are their directories, which end in ``/``, or ``""`` for none.

    ``size`` is in bytes. To iterate over the tar is to read it.
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
