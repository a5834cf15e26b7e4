"""The progress of the builder's downloads from binary caches: ``builds/fetching.json``.

Spec: spool-layout.md, "The Build store". No decision reads the file, and a failure to write it never fails a build.
"""

from __future__ import annotations

import os
import threading

import msgspec

from spoold.host import attributes, fsops
from spoold.host.attributes import Identity
from spoold.host.log import Log
from spoold.model import formats
from spoold.model.errors import NewerFormatError
from spoold.model.formats import Stored
from spoold.model.ids import Private
from spoold.model.response import Fetching
from spoold.spool.queue import Queue

log = Log("spool")


class FetchingNow(Stored, frozen=True, kw_only=True):
    """The downloads in progress, by build id."""

    builds: dict[str, Fetching]


class FetchingFile:
    """The file of one Build store. It has ``most`` bytes at most. Thread-safe."""

    def __init__(self, queue: Queue, most: int) -> None:
        self._queue = queue
        self._most = most
        self._now: dict[str, Fetching] = {}
        self._seen: Identity | None = None
        self._telling = threading.Lock()

    @property
    def path(self) -> str:
        """Return the path of the file that the builder keeps for the executors."""
        return os.path.join(self._queue.root, "fetching.json")

    def tell(self, build_id: str, fetching: Fetching | None) -> None:
        """Tell the executors how far the downloads of a build are. None where it downloads nothing any more."""
        with self._telling:
            before = self._now.pop(build_id, None)
            if fetching is not None:
                self._now[build_id] = fetching
            if before != fetching:
                self._write()

    def clear(self) -> None:
        """Forget what an earlier builder told."""
        with self._telling:
            self._now = {}
            self._write()

    def _write(self) -> None:
        try:
            if not self._now:
                fsops.remove(self.path)
                return
            private = self._queue.private(Private.NOTE, "fetching")
            fsops.write_private(private, formats.encode(FetchingNow(builds=self._now)), sync=False)
            fsops.replace(private, self.path)
        except OSError as error:
            log.warning("the progress of builds could not be written", error=error)

    def changed(self) -> dict[str, Fetching]:
        """Return the downloads in progress if they have changed since the last call, else nothing."""
        seen = attributes.identity(self.path)
        if seen == self._seen:
            return {}
        self._seen = seen
        try:
            data = fsops.read(self.path, self._most)
            return {} if data is None else formats.decode(data, FetchingNow, self.path).builds
        except (msgspec.DecodeError, fsops.OddFileError, NewerFormatError):
            return {}  # nothing depends on the file
