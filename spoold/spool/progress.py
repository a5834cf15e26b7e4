"""Side files of submissions in progress, for their owners to look at.

Spec: spool-layout.md, "The Response". No decision reads a side file, and a failure to write one fails nothing else.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

import msgspec

from spoold.host.log import Log
from spoold.model.ids import Entry
from spoold.model.response import Response
from spoold.model.submission import Origin
from spoold.spool.store import Spool

log = Log("spool")


class Progress:
    """The response so far of one running submission, for its owner to look at. Never fails the run.

    Nothing is shown while ``is_short`` tells that the disk has too little room. ``shown`` is the time of the last try
    to show it, on the monotonic clock. Thread-safe.
    """

    def __init__(
        self, spool: Spool, entry: Entry, response: Response, origin: Origin, is_short: Callable[[], bool]
    ) -> None:
        self._spool, self._is_short = spool, is_short
        self._entry, self._response, self._origin = entry, response, origin
        self._showing = threading.Lock()
        self._ended = False
        self.shown = -math.inf

    def change(self, **changes: object) -> None:
        """Note ``changes`` of the response, for the next :meth:`show`."""
        self._response = msgspec.structs.replace(self._response, **changes)

    def show(self) -> None:
        """Show the response so far, unless the submission has ended."""
        with self._showing:
            if self._ended or self._is_short():
                return
            self.shown = time.monotonic()
            try:
                self._spool.write_progress(self._entry.id, self._response, self._origin, self._entry.attempt)
            except OSError as error:
                log.warning("the response so far could not be written", submission=self._entry.id, error=error)

    def end(self) -> None:
        """Show nothing from now on, even if another thread is about to: the side file is to be removed."""
        with self._showing:
            self._ended = True
