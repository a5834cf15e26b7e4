"""The pins that the operator added to those of the settings, and the builder's answer about them.

Spec: spool-layout.md, "The Build store".
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

import msgspec

from spoold.host import fsops
from spoold.host.locks import locked
from spoold.model import formats
from spoold.model.errors import OperatorError
from spoold.model.formats import Stored
from spoold.model.ids import Kept, Private
from spoold.spool.orders import RESULT
from spoold.spool.queue import Queue


class PinsAnswer(Stored, frozen=True, kw_only=True):
    """The builder's answer about a set of added pins. ``error`` is "" when all of them are provided."""

    pins: dict[str, str]
    error: str


class Pins:
    """The added pins of one Build store. The builder's answer has ``most`` bytes at most."""

    def __init__(self, queue: Queue, most: int) -> None:
        self._queue = queue
        self._most = most

    def added(self) -> dict[str, str]:
        """Return the pins that the operator added to those of the settings: names and locations.

        Raises :class:`OperatorError` where the file cannot be read.
        """
        data = fsops.read(self.path)
        try:
            return {} if data is None else msgspec.json.decode(data, type=dict[str, str])
        except msgspec.DecodeError as error:
            raise OperatorError(f"{self.path} cannot be read: {error}; mend it, or remove it") from error

    def changing(self) -> AbstractContextManager[None]:
        """Keep others from changing the pins during a block: from the look at the old pins to the builder's answer."""
        return locked(self._queue.path("tmp", f"pins{Kept.LOCK}"), exclusive=True)

    def set(self, pins: dict[str, str]) -> None:
        """Change the added pins. The builder notices it."""
        private = self._queue.private(Private.NOTE, "pins")
        fsops.write_private(private, msgspec.json.encode(pins))
        fsops.replace(private, self.path)

    def answer(self, pins: dict[str, str], error: str) -> None:
        """Say that these pins are provided, or with ``error`` why they cannot be."""
        private = self._queue.private(Private.NOTE, "pins.result")
        fsops.write_private(private, formats.encode(PinsAnswer(pins=pins, error=error)))
        fsops.replace(private, f"{self.path}{RESULT}")

    def answered(self) -> PinsAnswer | None:
        """Return the builder's last answer about the pins. None where there is none."""
        path = f"{self.path}{RESULT}"
        data = fsops.read(path, self._most)
        return None if data is None else formats.decode(data, PinsAnswer, path)

    @property
    def path(self) -> str:
        """Return the path of the file of added pins."""
        return os.path.join(self._queue.root, "pins.json")
