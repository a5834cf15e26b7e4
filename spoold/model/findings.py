"""Findings of a look at the host. ``spoolctl doctor`` shows all of them. A daemon stops at one that is refused."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from spoold.model.errors import OperatorError


class Level(StrEnum):
    """How bad a finding is. ``UNKNOWN`` means that the subject could not be looked at, which is no verdict."""

    FINE = "fine"
    NOTE = "note"
    UNKNOWN = "not looked at"
    WARNING = "warning"
    REFUSED = "refused"


class Finding(msgspec.Struct, frozen=True):
    """One look at ``what``: what was seen (``detail``), and the command or setting that mends it (``remedy``)."""

    level: Level
    what: str
    detail: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        """Return the finding as one line of an error."""
        return f"{self.what}: {self.detail}" + (f": {self.remedy}" if self.remedy else "")


class Subject(msgspec.Struct, frozen=True):
    """The subject of a look, by the name that its findings have. Each method makes a finding about it."""

    name: str

    def __str__(self) -> str:
        """Return the name."""
        return self.name

    def fine(self, detail: str = "") -> Finding:
        """Return the finding that all is well."""
        return Finding(Level.FINE, self.name, detail)

    def note(self, detail: str, remedy: str = "") -> Finding:
        """Return a finding that is worth knowing, and what would make it better."""
        return Finding(Level.NOTE, self.name, detail, remedy)

    def unknown(self, detail: str, remedy: str = "") -> Finding:
        """Return the finding that the subject could not be looked at, and how it could be."""
        return Finding(Level.UNKNOWN, self.name, detail, remedy)

    def warning(self, detail: str, remedy: str) -> Finding:
        """Return the finding that something is not safe, or not for long, and what mends it."""
        return Finding(Level.WARNING, self.name, detail, remedy)

    def refused(self, detail: str, remedy: str = "") -> Finding:
        """Return the finding that nothing can run like this, and what mends it."""
        return Finding(Level.REFUSED, self.name, detail, remedy)


def refuse(findings: Iterable[Finding], where: str) -> None:
    """Raise :class:`OperatorError` for the first finding that is refused."""
    for finding in findings:
        if finding.level is Level.REFUSED:
            raise OperatorError(f"{where}: {finding}")
