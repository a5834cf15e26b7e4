"""Orders to collect the dependency cache, and the reports about them.

Spec: spool-layout.md, "Orders". An order is a file in ``builds/collect``. The builder answers it with another file.
"""

from __future__ import annotations

import msgspec

from spoold.host import fsops
from spoold.model import formats
from spoold.model.collection import Order, Report
from spoold.model.errors import NewerFormatError
from spoold.model.ids import Private
from spoold.spool.newer import OnNewer, ignore
from spoold.spool.queue import Queue

RESULT = ".result.json"
BY_HAND = "by-hand-"  # names of orders that a person filed begin like this. That person reads the reports


class Orders:
    """The orders of one Build store, whose entries are in ``queue``. A report has ``most`` bytes at most."""

    def __init__(self, queue: Queue, most: int) -> None:
        self._queue = queue
        self._most = most

    def file(self, name: str, order: Order) -> None:
        """File an order to collect. It replaces an order of the same name that lies there already."""
        private = self._queue.private(Private.ORDER, name)
        fsops.write_private(private, formats.encode(order))
        fsops.remove(self._queue.path("collect", f"{name}{RESULT}"))
        fsops.replace(private, self._queue.path("collect", f"{name}.json"))

    def waiting(self, newer: OnNewer = ignore) -> dict[str, Order]:
        """Return the orders that lie there, by name, but for those of a newer version. Remove files that are none."""
        found = {}
        for file in fsops.names(self._queue.path("collect")):
            if file.endswith(RESULT):
                continue
            name, path = file.removesuffix(".json"), self._queue.path("collect", file)
            try:
                found[name] = formats.decode(fsops.read(path) or b"", Order, path)
            except NewerFormatError as error:
                newer(error)
            except msgspec.DecodeError:
                fsops.remove(path)
        return found

    def is_filed(self, name: str) -> bool:
        """Tell whether an order of that name lies there, whichever version wrote it."""
        return fsops.exists(self._queue.path("collect", f"{name}.json"))

    def answer(self, name: str, report: Report) -> None:
        """Write the report about an order, and remove the order."""
        private = self._queue.private(Private.REPORT, name)
        fsops.write_private(private, formats.encode(report))
        fsops.replace(private, self._queue.path("collect", f"{name}{RESULT}"))
        fsops.remove(self._queue.path("collect", f"{name}.json"))

    def report(self, name: str) -> Report | None:
        """Return the report about an order. None before the order is done."""
        path = self._queue.path("collect", f"{name}{RESULT}")
        data = fsops.read(path, self._most)
        return None if data is None else formats.decode(data, Report, path)

    def forget(self, name: str) -> None:
        """Remove the report about an order, once it is read."""
        fsops.remove(self._queue.path("collect", f"{name}{RESULT}"))

    def answered_at(self, name: str) -> float | None:
        """Return when an order was last answered, in seconds on the file system's clock. None if it never was."""
        return fsops.mtime(self._queue.path("collect", f"{name}{RESULT}"))
