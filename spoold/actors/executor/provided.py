"""What the builder provides, as far as this executor can use it: the runtime, and with it the pins.

Spec: spool-layout.md, "The Build store". Nothing is begun before there is one. The id of a build depends on it.
"""

from __future__ import annotations

from spoold.host import attributes
from spoold.host.attributes import Identity
from spoold.host.log import Log
from spoold.model.errors import NewerFormatError, OperatorError
from spoold.model.job import Runtime
from spoold.model.plan import build_id_of
from spoold.model.states import Role
from spoold.model.submission import Dependencies, Request
from spoold.spool.runtime import RuntimeFile

log = Log(Role.EXECUTOR)


class Provided:
    """The ``runtime`` that lies in ``file``; None while there is none to use."""

    def __init__(self, file: RuntimeFile) -> None:
        self._file = file
        self._seen: Identity | None = None
        self.runtime: Runtime | None = None

    def changed(self) -> bool:
        """Look whether there is another one, or none any more; use that from now on."""
        seen = attributes.identity(self._file.path)
        if seen == self._seen:
            return False
        self.runtime, self._seen = self._usable(), seen
        return True

    def _usable(self) -> Runtime | None:
        try:
            return self._file.usable()
        except NewerFormatError as error:
            log.warning("waiting: the builder is of a newer version; upgrade this executor", error=error)
        except OperatorError as error:
            log.error("no work is taken until the builder provides a runtime that can be used", error=error)
        return None

    def build_id(self, request: Request | None) -> str | None:
        """Return the id of the build that a request needs, None where it needs none or there can be none."""
        if request is None or request.kind == "list-dependencies" or self.runtime is None:
            return None
        return build_id_of(request, self.runtime)

    def dependencies(self, request: Request, build_id: str) -> Dependencies:
        """Return what is filed for the builder to build what a request needs."""
        pin = self.runtime.nixpkgs[request.nixpkgs] if self.runtime else ""
        return Dependencies(build_id=build_id, expression=request.expression(), nixpkgs=pin)
