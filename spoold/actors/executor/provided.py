"""The runtime that the builder provides, with its pins, as far as this executor can use it.

Spec: spool-layout.md, "The Build store". The ids of builds depend on the runtime, so nothing begins before there is
one.
"""

from __future__ import annotations

from spoold.host import attributes
from spoold.host.attributes import Identity
from spoold.host.log import Log
from spoold.model.errors import NewerFormatError, OperatorError
from spoold.model.job import Runtime
from spoold.model.plan import builds_of
from spoold.model.states import Role
from spoold.model.submission import Dependencies, Request
from spoold.spool.runtime import RuntimeFile

log = Log(Role.EXECUTOR)


class Provided:
    """The ``runtime`` that lies in ``file``, None while there is none that can be used."""

    def __init__(self, file: RuntimeFile) -> None:
        self._file = file
        self._seen: Identity | None = None
        self.runtime: Runtime | None = None

    def changed(self) -> bool:
        """Look whether the runtime has changed or is gone. If so, use what is there from now on, and return True."""
        seen = attributes.identity(self._file.path)
        if seen == self._seen:
            return False
        self.runtime, self._seen = self._usable(), seen
        return True

    def _usable(self) -> Runtime | None:
        try:
            return self._file.usable()
        except NewerFormatError as error:
            log.warning("no work is taken: the builder is of a newer version; upgrade this executor", error=error)
        except OperatorError as error:
            log.error("no work is taken until the builder provides a runtime that can be used", error=error)
        return None

    def builds(self, request: Request | None) -> list[Dependencies]:
        """Return the builds that a request needs, its program's first. Return none where no build can be named."""
        if request is None or request.kind == "list-dependencies" or self.runtime is None:
            return []
        builds = builds_of(request, self.runtime)
        pin = self.runtime.nixpkgs.get(request.nixpkgs, "")
        return [Dependencies(build_id=id_, expression=text, nixpkgs=pin) for id_, text in builds.items()]
