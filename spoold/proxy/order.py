"""The messages between the builder and the proxy, over a Unix socket: an order, then a report."""

from __future__ import annotations

from enum import StrEnum

import msgspec

LONGEST = 64 * 1024  # bytes of an order
PASSAGES = 200  # the most passages in a report
ACCEPTED = b"\n"  # the answer to an order that is being served


class Purpose(StrEnum):
    """What is to be fetched. The purpose decides which hosts are allowed."""

    SOURCE = "source"  # a pinned source, which a builder of a client's derivation fetches
    CACHE = "cache"  # paths from binary caches, which Nix itself fetches
    PIN = "pin"  # a nixpkgs that is a URL, which Nix itself fetches


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator allows for one purpose: hosts, further networks, and the ``setting`` that names the hosts.

    ``bytes`` and ``time`` (seconds) are bounds beside those of an order.
    """

    hosts: list[str]
    inside: list[str]
    setting: str
    bytes: int
    time: float


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What a proxy for one order is started with: its rules, and the uid to change to, or -1 to keep its own."""

    rules: Rules
    uid: int


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be let through, and for whom. The listening socket comes with it.

    ``build`` and ``what`` are for the log. ``bytes`` and ``time`` (seconds) bound the fetch. The proxy's own settings
    may be stricter.
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
    INSIDE = "inside"  # its host is on the list, but resolves to addresses that are not public
    AWAY = "away"  # its host is on the list, but does not answer, or sends only a part of the answer
    MALFORMED = "malformed"  # it is no request that a proxy takes
    CROWDED = "crowded"  # there are too many connections at once


class Passage(msgspec.Struct, kw_only=True):
    """One request: where it was to go, and what came of it.

    ``status`` is the HTTP status of the answer to a request that was not tunnelled, or 0 where none came. ``sent`` and
    ``received`` count the bytes sent to the server and received from it. ``said`` describes the ``trouble`` to people.
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
    """What ended the work on an order."""

    BUILDER = "builder"  # the builder no longer needs the proxy
    BYTES = "bytes"  # the bound on bytes
    TIME = "time"  # the bound on time


class Report(msgspec.Struct, kw_only=True):
    """What came of an order.

    It holds only the first passages if there are very many. Half of the room is kept for passages with trouble.
    """

    ended: Ended
    bytes: int
    time: float
    transferred: int
    passages: list[Passage]
