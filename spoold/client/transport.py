"""The protocol of transports to a spool: a directory, a shell account, or the gateway."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

MOST = 1 << 28  # bytes of an answer that are read; no response is that large


class Dropped:
    """A file in the drop box: its id, its owner's uid if that is known, and its SHA-256.

    The uid is the one that the file system tells. Over NFS and through ssh it can differ from the uid of the caller.
    ``file`` is the name of the file in the drop box.
    """

    def __init__(self, id_: str, file: str, uid: int | None, sha256: str) -> None:
        self.id = id_
        self.file = file
        self.uid = uid
        self.sha256 = sha256


class Transport(Protocol):
    """A way to a spool. Several threads may call its methods at once.

    Each method raises :class:`UnreachableError` where the spool cannot be reached, and :class:`AnswerError` for an
    answer that is larger than any response.
    """

    def require(self) -> None:
        """Raise :class:`NoSpoolError` where there is no spool, unless each question says so by itself."""

    def drop(self, id_: str, data: bytes) -> Dropped:
        """Put a request into the drop box. Raises :class:`RequestError` where the id cannot be used."""

    def answers(self, names: Collection[str], patience: float) -> dict[str, bytes]:
        """Return those of the answers ``names`` that are there. Another user's answer is returned empty.

        May wait up to ``patience`` seconds for the first answer, where waiting is cheaper than being asked again.
        """

    def is_dropped(self, file: str) -> bool:
        """Tell whether a file of that name is still in the drop box."""

    def look(self, id_: str) -> tuple[bytes | None, bool]:
        """Return the response, or the response so far, and whether anything is known of that id."""

    def cancel(self, id_: str) -> None:
        """Ask for a submission to be cancelled."""

    def tar(self, id_: str, size: int) -> bytes | None:
        """Return the tar beside a response, at most ``size`` + 1 bytes of it; None where there is none."""

    def close(self) -> None:
        """Release what the transport holds. May be called again."""


def digest(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    import hashlib  # noqa: PLC0415 - it loads OpenSSL, which a client that only reads a response does not need

    return hashlib.sha256(data).hexdigest()
