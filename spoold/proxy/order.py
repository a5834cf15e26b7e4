"""What the builder and the proxy say to each other, over a Unix socket: an order, then a report."""

from __future__ import annotations

from enum import StrEnum

import msgspec

LONGEST = 64 * 1024  # bytes of an order
PASSAGES = 200  # of which a report tells
ACCEPTED = b"\n"  # the answer to an order that is being served


class Purpose(StrEnum):
    """What is to be fetched, which decides on the hosts."""

    SOURCE = "source"  # by a builder of a client's
    CACHE = "cache"  # from binary caches, by Nix itself
    PIN = "pin"  # a nixpkgs that is a URL, by Nix itself


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator allows for one purpose: hosts, further networks, and where that is said.

    ``bytes`` and ``time`` are bounds beside those of an order.
    """

    hosts: list[str]
    inside: list[str]
    setting: str
    bytes: int
    time: float


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What a proxy for one order is started with: its rules, and the user to become, -1 for none."""

    rules: Rules
    uid: int


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be let through, and for whom; it comes with the listening socket.

    ``build`` and ``what`` are for the log. ``bytes`` and ``time`` (seconds) bound it; the proxy's own settings may be
    stricter.
    """

    build: str
    what: str
    bytes: int
    time: float
    purpose: Purpose = Purpose.SOURCE


class Trouble(StrEnum):
    """Why a request was not answered as it should have been."""

    NONE = ""
    UNLISTED = "unlisted"  # its host is not on the list
    INSIDE = "inside"  # its host is on the list, and resolves to addresses of no public host
    AWAY = "away"  # its host is on the list, and does not answer, or not all of it
    MALFORMED = "malformed"  # it is no request that a proxy takes
    CROWDED = "crowded"  # there are too many at once


class Passage(msgspec.Struct, kw_only=True):
    """One request: where it wanted to go, and what became of it.

    ``status`` is the HTTP status of a request that was not tunnelled, 0 where none came. ``sent`` and ``received`` are
    bytes, as the server sees them. ``said`` goes with ``trouble``: what happened, for people.
    """

    method: str = ""
    host: str = ""
    target: str = ""
    address: str = ""
    status: int = 0
    sent: int = 0
    received: int = 0
    trouble: Trouble = Trouble.NONE
    said: str = ""


class Ended(StrEnum):
    """What ended it."""

    BUILDER = "builder"  # which needs it no more
    BYTES = "bytes"
    TIME = "time"


class Report(msgspec.Struct, kw_only=True):
    """What came of an order; of very many passages it tells of the first ones, and half of these are for trouble."""

    ended: Ended
    bytes: int
    time: float
    transferred: int
    passages: list[Passage]
