"""Hosts that may be downloaded from: exact names, each with the ports that are allowed.

A pattern such as ``.example.org`` is not allowed. With it, a program that downloads could choose the labels in front,
and the resolver of this host would carry them outside.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

PORTS = (80, 443)
SCHEMES = {"http": 80, "https": 443, "ftp": 21}  # with their usual ports
_AUTHORITY = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]{1,254}))(?::(?P<port>[0-9]{1,5}))?")
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_](?:[a-z0-9_-]{0,62}))*")


class Host(NamedTuple):
    """A host and a port. ``port`` is 0 where none is named."""

    name: str
    port: int

    def __str__(self) -> str:
        """Return the host as people read it, without the port where that is a usual one."""
        return self._name if self.port in (0, *PORTS) else self.authority

    @property
    def authority(self) -> str:
        """Return the host and its port as they stand in a URL."""
        return f"{self._name}:{self.port}"

    @property
    def _name(self) -> str:
        return f"[{self.name}]" if ":" in self.name else self.name


def parse(text: str) -> Host:
    """Parse ``name``, ``name:port`` or ``[address]:port``. Raises :class:`ValueError`, which says what is wrong."""
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is not a host: write a name or an address, with a port if needed, such as 'mirror.corp:8080'"
        )
    port = found["port"]
    if port is not None and not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: there is no port {port}")
    if found["six"]:
        name = str(ipaddress.IPv6Address(found["six"]))
    else:
        name = found["name"].lower().removesuffix(".")
        if not _NAME.fullmatch(name):
            raise ValueError(f"{text!r} is not a name of a host")
    return Host(name, int(port or 0))


def entry(text: str) -> Host:
    """Parse a host as an operator writes it. Raises :class:`ValueError`, which says what to write instead."""
    if "://" in text or "/" in text:
        name = urlsplit(text if "://" in text else f"//{text}").netloc or "github.com"
        raise ValueError(f"{text!r} is a URL: name the host alone, {name!r}")
    if text.startswith((".", "*")):
        raise ValueError(f"{text!r} is a pattern, and only exact names count: name each host")
    if not text.isascii():
        raise ValueError(f"{text!r}: write the name as DNS has it, in ASCII (xn--...)")
    return parse(text)


def of_url(url: str) -> Host | None:
    """Return the host and port of a URL. None where it has no host, or a scheme that is not known here."""
    try:
        parts = urlsplit(url)
        default = SCHEMES.get(parts.scheme.removeprefix("git+"))
        if default is None:
            return None
        host = parse(parts.netloc.rpartition("@")[2])
    except ValueError:
        return None
    return host._replace(port=host.port or default)


class Hosts:
    """The list of hosts that the settings have."""

    def __init__(self, entries: Iterable[str | Host]) -> None:
        self._ports: dict[str, set[int]] = {}
        for each in entries:
            host = entry(each) if isinstance(each, str) else each
            self._ports.setdefault(host.name, set()).update([host.port] if host.port else PORTS)

    def allows(self, host: Host) -> bool:
        """Tell whether a host may be reached at its port."""
        return host.port in self._ports.get(host.name, ())

    def __bool__(self) -> bool:
        """Tell whether there is any host in the list."""
        return bool(self._ports)
