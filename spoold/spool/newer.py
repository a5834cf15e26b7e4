"""Objects that a newer version of spoold wrote: a reader leaves them alone, and says so once.

Spec: spool-layout.md, "Formats". A million entries of one newer format make one line of the log. It says where they lie
and how many were seen.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from spoold.host.log import Log
from spoold.model.errors import NewerFormatError

OnNewer = Callable[[NewerFormatError], object]


def ignore(_: NewerFormatError) -> None:
    """Say nothing about an object that a newer version wrote."""


class LeftAlone:
    """The objects that one daemon leaves alone. Thread-safe."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._seen: dict[tuple[str, int], list[str]] = {}  # names by directory and format, until they are logged
        self._told: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def meet(self, error: NewerFormatError) -> None:
        """Note the object that the error is about, for :meth:`tell`."""
        self.note(error.path, error.format)

    def note(self, path: str, number: int) -> None:
        """Note a file of a newer format, for :meth:`tell`."""
        directory, name = os.path.split(path)
        with self._lock:
            if (directory, number) not in self._told:
                self._seen.setdefault((directory, number), []).append(name)

    def tell(self) -> None:
        """Log the noted objects, once for each directory and format."""
        with self._lock:
            seen, self._seen = self._seen, {}
            self._told |= seen.keys()
        for (directory, number), names in seen.items():
            self._log.warning(
                "left alone: a newer version of spoold wrote this file; upgrade this daemon",
                directory=directory,
                format=number,
                files=len(set(names)),
                first=names[0],
            )
