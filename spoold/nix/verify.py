"""The check whether the store's contents are still those that were built: every path is hashed and compared.

Theory of operation: Nix itself compares each path with the hash in its database. A past attack on the store leaves no
trace in the database, but it does in the contents. The check runs as the store's owner: this module is also a program,
which :mod:`spoold.nix.seat` starts as that user. Collections wait meanwhile. Builds and jobs go on.
"""

from __future__ import annotations

import re
import sys
from threading import Event

import msgspec

from spoold.config import NixSettings
from spoold.host import proc, userns
from spoold.model.errors import TemporaryError
from spoold.nix import seat
from spoold.nix.store import Store

VERIFY_TIMEOUT = 24 * 3600.0  # seconds. A disk reads about 100 MB a second
_DAMAGED = re.compile(
    r"path '(?P<path>/nix/store/[0-9a-z]{32}-[0-9A-Za-z+._?=-]+)' (?P<what>was modified|disappeared)[^\n]*"
)


class Damaged(msgspec.Struct, frozen=True):
    """A store path that differs from what was registered, and Nix's words for how, such as "was modified"."""

    path: str
    what: str


class Verified(msgspec.Struct, frozen=True):
    """The result of a check: how many paths there are, and which are damaged."""

    paths: int
    damaged: list[Damaged]


def verify(settings: NixSettings) -> Verified:
    """Check everything that the store holds, as the store's owner.

    Raises :class:`OperatorError` where this user does not own the store and cannot become its owner, and
    :class:`TemporaryError` where Nix fails.
    """
    if seat.is_taken(settings):
        return _verified(settings)
    return msgspec.json.decode(
        seat.run(settings, __name__, msgspec.json.encode(settings), VERIFY_TIMEOUT), type=Verified
    )


def _verified(settings: NixSettings) -> Verified:
    store = Store(settings)
    with store.lock.shared(Event()):
        finished = store.run(
            ["nix-store", "--verify", "--check-contents"], proc.Bounds(wall=VERIFY_TIMEOUT, stderr=1 << 24)
        )
        with store.database() as database:
            (count,) = database.execute("SELECT count(*) FROM ValidPaths").fetchone()
    store.close_listing()
    said = finished.stderr.data.decode(errors="replace")
    damaged = [Damaged(match["path"], match["what"]) for match in _DAMAGED.finditer(said)]
    if not finished.ok and not damaged:
        raise TemporaryError(f"the store cannot be verified: {said.strip()[-2000:]}")
    return Verified(count, damaged)


if __name__ == "__main__":
    userns.at_start()
    sys.stdout.buffer.write(
        msgspec.json.encode(_verified(msgspec.json.decode(sys.stdin.buffer.read(), type=NixSettings)))
    )
