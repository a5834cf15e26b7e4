"""What a look at the host finds: ``spoolctl doctor`` shows all of it, a daemon stops at what is refused."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from spoold.model.errors import OperatorError


class Level(StrEnum):
    """How bad it is. ``UNKNOWN`` is what could not be looked at, which is no verdict."""

    FINE = "fine"
    NOTE = "note"
    UNKNOWN = "not looked at"
    WARNING = "warning"
    REFUSED = "refused"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at: ``what``, what was seen (``detail``), and the command or setting that mends it."""

    level: Level
    what: str
    detail: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        """Return it as one line of an error."""
        return f"{self.what}: {self.detail}" + (f": {self.remedy}" if self.remedy else "")


class Subject(msgspec.Struct, frozen=True):
    """What is looked at, by the name that its finding has; each method makes a finding of it."""

    name: str

    def __str__(self) -> str:
        """Return the name."""
        return self.name

    def fine(self, detail: str = "") -> Finding:
        """Return that all is well."""
        return Finding(Level.FINE, self.name, detail)

    def note(self, detail: str, remedy: str = "") -> Finding:
        """Return something worth knowing, and what would make it better."""
        return Finding(Level.NOTE, self.name, detail, remedy)

    def unknown(self, detail: str, remedy: str = "") -> Finding:
        """Return that it could not be looked at, and how it could be."""
        return Finding(Level.UNKNOWN, self.name, detail, remedy)

    def warning(self, detail: str, remedy: str) -> Finding:
        """Return something that is not safe, or not for long, and what mends it."""
        return Finding(Level.WARNING, self.name, detail, remedy)

    def refused(self, detail: str, remedy: str = "") -> Finding:
        """Return that nothing can run like this, and what mends it."""
        return Finding(Level.REFUSED, self.name, detail, remedy)


def refuse(findings: Iterable[Finding], where: str) -> None:
    """Raise :class:`OperatorError` for the first finding that is refused."""
    for finding in findings:
        if finding.level is Level.REFUSED:
            raise OperatorError(f"{where}: {finding}")
