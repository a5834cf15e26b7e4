"""The pins that a request may name: those of the settings, and those that the builder provides.

Spec: spool-layout.md, "Acceptance" and "The Build store". The builder's file is read again when it changes. If a newer
version wrote it, a request for a pin that may exist is not refused.
"""

from __future__ import annotations

import contextlib

from spoold.config import Settings
from spoold.host import attributes
from spoold.host.attributes import Identity
from spoold.model.errors import NewerFormatError, OperatorError
from spoold.spool.builds import BuildStore
from spoold.spool.newer import LeftAlone


class KnownPins:
    """The ``names`` of the pins of one spool."""

    def __init__(self, settings: Settings, newer: LeftAlone) -> None:
        self._settings = settings
        self._builds = BuildStore(settings)
        self._newer = newer
        self._seen: Identity | None = None
        self.names = frozenset(settings.nixpkgs) | {"default"}

    def apply_settings(self, settings: Settings) -> None:
        """Use other settings."""
        self._settings = settings
        self._read()

    def follow(self) -> None:
        """Read what the builder provides, if it has changed since it was last read."""
        seen = attributes.identity(self._builds.runtime.path)
        if seen != self._seen:
            self._read()
            self._seen = seen

    def _read(self) -> None:
        self.names = frozenset(self._settings.nixpkgs) | {"default"} | self._provided()

    def _provided(self) -> frozenset[str]:
        try:
            runtime = self._builds.runtime.read()
        except NewerFormatError as error:
            self._newer.meet(error)
            with contextlib.suppress(OperatorError):
                return self.names | self._builds.pins.added().keys()
            return self.names
        return frozenset(runtime.nixpkgs if runtime else ())
