"""Provides two things to all executors: the runtime of the sandbox, and the pins of nixpkgs.

Spec: spool-layout.md, "The Build store". The pins are those of the settings and those that the operator added. An
operator who added some waits for an answer, and gets it even if no builder ran at that time.
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
    """The source of the runtime: Nix."""

    def prepare(self, pins: dict[str, str]) -> Runtime:
        """Provide the pins, by name and location, and the runtime."""

    def apply_settings(self, settings: Settings) -> None:
        """Use other settings for what begins from now on."""

    def holds(self, path: str) -> bool:
        """Tell whether a store path is there, whole."""


class Provider:
    """Provides what ``source`` makes. One thread uses it at a time."""

    def __init__(self, settings: Settings, source: Source, builds: BuildStore, newer: LeftAlone) -> None:
        self._settings = settings
        self._source = source
        self._builds = builds
        self._newer = newer
        self._pins: dict[str, str] = {}
        self._seen: attributes.Identity | None = None  # identity of the file of added pins
        self._looked = False

    def apply_settings(self, settings: Settings) -> None:
        """Use other settings. The next call provides their pins."""
        self._settings = settings
        self._source.apply_settings(settings)

    def pin(self, path: str) -> str | None:
        """Return the name of the pin whose store path is ``path``, None where there is none any more."""
        return self._pins.get(path)

    def provide(self) -> None:
        """Provide everything at the start. Raises what keeps the source from it."""
        with self._answered(OperatorError):
            self._provide()

    def changed(self) -> bool:
        """Tell whether pins were added or removed since the last call."""
        before, self._seen = self._seen, attributes.identity(self._builds.pins.path)
        return self._seen != before

    def provide_anew(self) -> None:
        """Provide the pins that were added.

        Where that fails, everything stays as it was. The log tells it, and the person who added the pins gets an
        answer.
        """
        try:
            with self._answered(SpooldError, OSError):
                self._provide()
        except (SpooldError, OSError) as error:
            log.error("new pins cannot be provided; the earlier pins stay in use", error=error)

    def is_possible(self) -> bool:
        """Tell whether the source works at all."""
        try:
            self._source.prepare(self._wanted())
        except (TemporaryError, OperatorError):
            return False
        return True

    @contextlib.contextmanager
    def _answered(self, *failures: type[Exception]) -> Iterator[None]:
        """Answer the person who changed the pins, with the error where the block raises one of ``failures``."""
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
        """Forget builds whose paths are not in the store: the store is another one, or somebody deleted them."""
        gone = set()
        for build_id in self._builds.finished():
            try:
                record = self._builds.result(build_id)
            except NewerFormatError as error:
                self._newer.meet(error)
                continue
            if record and record.result.shell and not self._source.holds(record.result.shell):
                log.warning("a build is no longer in the store; it is built again when a job needs it", build=build_id)
                gone.add(build_id)
        self._builds.forget(gone)
