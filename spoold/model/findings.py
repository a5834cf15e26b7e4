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


def refuse(findings: Iterable[Finding], where: str) -> None:
    """Raise :class:`OperatorError` for the first finding that is refused."""
    for finding in findings:
        if finding.level is Level.REFUSED:
            raise OperatorError(f"{where}: {finding}")
