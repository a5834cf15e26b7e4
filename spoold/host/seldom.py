"""Lines of the log that users could cause in any number. Here each subject gets one line in a while.

The next line about a subject says how many lines were left out since. The level ``debug`` shows these too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import NamedTuple

from spoold.host.clock import Clock
from spoold.host.log import Log

TELLING = 60.0  # seconds between two lines about one subject
MOST = 1000  # subjects that are remembered before those of old lines are forgotten


class _Told(NamedTuple):
    """When a line was written, on the monotonic clock, and how many lines were left out since."""

    at: float = -math.inf
    more: int = 0


class Seldom:
    """Writes to ``log``, but of the lines with one message and subject only the first in ``TELLING`` seconds."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self._told: dict[tuple[str, Hashable], _Told] = {}

    def info(self, message: str, about: Hashable, **fields: object) -> None:
        """Log the ordinary course of things."""
        self._write(self._log.info, message, about, fields)

    def error(self, message: str, about: Hashable, **fields: object) -> None:
        """Log something that is broken."""
        self._write(self._log.error, message, about, fields)

    def _write(self, write: Callable[..., None], message: str, about: Hashable, fields: dict[str, object]) -> None:
        now = self._clock.monotonic()
        told = self._told.get((message, about), _Told())
        if now - told.at < TELLING:
            self._told[message, about] = told._replace(more=told.more + 1)
            self._log.debug(message, **fields)
            return
        if told.more:
            fields = {**fields, "left_out": told.more}
        write(message, **fields)
        if len(self._told) >= MOST:
            self._told = {key: each for key, each in self._told.items() if now - each.at < TELLING}
        self._told[message, about] = _Told(now)
