"""The runtime that the builder provides to all executors: ``builds/runtime.json``.

Spec: spool-layout.md, "The Build store".
"""

from __future__ import annotations

import os

import msgspec

from spoold.host import fsops
from spoold.model import formats
from spoold.model.errors import OperatorError
from spoold.model.ids import Private
from spoold.model.job import Runtime
from spoold.spool.queue import Queue


class RuntimeFile:
    """The runtime of one Build store. Its file has ``most`` bytes at most."""

    def __init__(self, queue: Queue, most: int) -> None:
        self._queue = queue
        self._most = most

    def provide(self, runtime: Runtime) -> None:
        """Tell the executors where the sandbox's own programs are in the store, unless the file says so already."""
        data = formats.encode(runtime)
        if data == fsops.read(self.path):
            return
        private = self._queue.private(Private.NOTE, "runtime")
        fsops.write_private(private, data)
        fsops.replace(private, self.path)

    @property
    def path(self) -> str:
        """Return the path of the file that the builder keeps for the executors."""
        return os.path.join(self._queue.root, "runtime.json")

    def read(self) -> Runtime | None:
        """Return the runtime. None where no builder has provided one that can be used.

        Raises :class:`NewerFormatError` where a newer builder provides it.
        """
        try:
            return self.usable()
        except OperatorError:
            return None

    def usable(self) -> Runtime | None:
        """Return the runtime. None where no builder has provided one.

        Raises :class:`OperatorError` for a runtime that cannot be used: the next builder that starts provides another.
        Raises :class:`NewerFormatError` where a newer builder provides it.
        """
        try:
            data = fsops.read(self.path, self._most)
            return None if data is None else formats.decode(data, Runtime, self.path)
        except (msgspec.DecodeError, fsops.OddFileError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise OperatorError(f"{self.path} cannot be used: {reason}; restart the builder") from error
