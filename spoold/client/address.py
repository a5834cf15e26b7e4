"""Addresses of spools: a directory, or ``ssh://``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spoold.client.transport import Transport

DEFAULT = "/var/spool/spoold"
ELSEWHERE = "ssh://"


def connect(where: str, ssh: Iterable[str] | None = None) -> Transport:
    """Return the transport to a spool. Raises :class:`UnreachableError`. Imports only the transport that it needs."""
    if where.startswith(ELSEWHERE):
        from spoold.client import ssh as by_ssh  # noqa: PLC0415 - as above

        return by_ssh.connect(where, ssh)
    from spoold.client.directory import Directory  # noqa: PLC0415 - as above

    return Directory(where)
