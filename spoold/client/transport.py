"""What a way to a spool does: over a directory, through a shell account, through the gateway."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

MOST = 1 << 28  # bytes of an answer that are read; so much no response has


class Dropped:
    """What was put into the drop box: its id, the uid that it has there if that is known, and the SHA-256 of it.

    The file system says whose it is: over NFS and through ssh that is not the user who asks. ``file`` is the name that
    it has in the drop box.
    """

    def __init__(self, id_: str, file: str, uid: int | None, sha256: str) -> None:
        self.id = id_
        self.file = file
        self.uid = uid
        self.sha256 = sha256


class Transport(Protocol):
    """A way to a spool. All of it may be called by several threads at once.

    Each raises :class:`UnreachableError` where the spool is not to be had, and :class:`AnswerError` for what is larger
    than any answer.
    """

    def drop(self, id_: str, data: bytes) -> Dropped:
        """Put a request into the drop box; raises :class:`RequestError` where the id cannot be had."""

    def answers(self, names: Collection[str], patience: float) -> dict[str, bytes]:
        """Return those of the answers ``names`` that are there; one that is another user's is empty.

        It may wait ``patience`` seconds for the first, where that is cheaper than to be asked again.
        """

    def is_dropped(self, file: str) -> bool:
        """Tell whether a file of that name is in the drop box still."""

    def look(self, id_: str) -> tuple[bytes | None, bool]:
        """Return the response, or the response so far, and whether anything is known of that id."""

    def cancel(self, id_: str) -> None:
        """Ask for the end of a submission."""

    def tar(self, id_: str, size: int) -> bytes | None:
        """Return what lies beside a response, ``size`` bytes at most and one more; None where there is nothing."""

    def close(self) -> None:
        """Give up what it holds. May be repeated."""


def digest(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    import hashlib  # noqa: PLC0415 - it loads OpenSSL, which whoever only reads a response need not

    return hashlib.sha256(data).hexdigest()
