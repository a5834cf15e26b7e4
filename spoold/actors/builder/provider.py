"""What the builder provides to all executors: the runtime of the sandbox, and the pins of nixpkgs.

Spec: spool-layout.md, "The Build store". Pins are those of the settings and those that the operator added. Whoever
added some waits for an answer, be it that no builder ran meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

from spoold.config import Settings
from spoold.host import attributes, fsops
from spoold.host.log import Log
from spoold.model.errors import NewerFormatError, OperatorError, SpooldError, TemporaryError
from spoold.model.job import Runtime
from spoold.model.states import Role
from spoold.spool.builds import BuildStore
from spoold.spool.newer import LeftAlone

log = Log(Role.BUILDER)


class Source(Protocol):
    """What the runtime comes from: Nix."""

    def prepare(self, pins: dict[str, str]) -> Runtime:
        """Provide the pins, by name and location, and the runtime."""

    def holds(self, path: str) -> bool:
        """Tell whether a store path is there, whole."""


class Provider:
    """Provides what ``source`` makes; used by one thread at a time."""

    def __init__(self, settings: Settings, source: Source, builds: BuildStore, newer: LeftAlone) -> None:
        self._settings = settings
        self._source = source
        self._builds = builds
        self._newer = newer
        self._pins: dict[str, str] = {}
        self._seen: attributes.Identity | None = None  # of the file of added pins
        self._looked = False

    def apply_settings(self, settings: Settings) -> None:
        """Go by other settings; their pins are provided by the next call."""
        self._settings = settings

    def pin(self, path: str) -> str | None:
        """Return the name of the pin that is the store path ``path``, None where there is none any more."""
        return self._pins.get(path)

    def provide(self) -> None:
        """Provide all at the start; raises what keeps the source from it."""
        with self._answered(OperatorError):
            self._provide()

    def changed(self) -> bool:
        """Tell whether pins were added or removed since this was asked last."""
        before, self._seen = self._seen, attributes.identity(self._builds.pins.path)
        return self._seen != before

    def provide_anew(self) -> None:
        """Provide what was added. Where that cannot be, all stays as it was, and the log and whoever added it know."""
        try:
            with self._answered(SpooldError, OSError):
                self._provide()
        except (SpooldError, OSError) as error:
            log.error("the pins that were added cannot be provided; the others are", error=error)

    def is_possible(self) -> bool:
        """Tell whether the source does its work at all."""
        try:
            self._source.prepare(self._wanted())
        except (TemporaryError, OperatorError):
            return False
        return True

    @contextlib.contextmanager
    def _answered(self, *failures: type[Exception]) -> Iterator[None]:
        """Answer whoever changed the pins, be it with one of the ``failures`` of the block."""
        pins, error = self._builds.pins.added(), ""
        asked = self._looked or fsops.exists(self._builds.pins.path)
        self._looked = True
        try:
            yield
        except failures as failure:
            error = str(failure)
            raise
        finally:
            if asked:
                self._builds.pins.answer(pins, error)

    def _wanted(self) -> dict[str, str]:
        return self._builds.pins.added() | self._settings.nixpkgs

    def _provide(self) -> None:
        self._seen = attributes.identity(self._builds.pins.path)
        runtime = self._source.prepare(self._wanted())
        self._pins = {path: name for name, path in runtime.nixpkgs.items()}
        self._forget_what_is_gone()
        self._builds.runtime.provide(runtime)

    def _forget_what_is_gone(self) -> None:
        """Forget builds whose paths are not in the store (it was another one, or somebody deleted from it)."""
        gone = set()
        for build_id in self._builds.finished():
            try:
                record = self._builds.result(build_id)
            except NewerFormatError as error:
                self._newer.meet(error)
                continue
            if record and record.result.shell and not self._source.holds(record.result.shell):
                log.warning("not in the store any more; it will be built again when it is needed", build=build_id)
                gone.add(build_id)
        self._builds.forget(gone)
