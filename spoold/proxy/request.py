"""The head of a request to a proxy (RFC 9110, RFC 9112): it is read strictly, and written anew.

The head for the server is made only of parts that were understood. It is one request on one connection, and its Host
field has the checked host. It has nothing that two readers could understand in two ways. The head of the answer says
that the connection ends. Otherwise a client would send its next request, such as that to which it was redirected, on a
connection that is being closed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from spoold.model.hosts import Host, parse

LARGEST = 32 * 1024  # bytes of a head
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VERSION = re.compile(r"HTTP/1\.[01]")
_TARGET = re.compile(r"[!-~]{1,16384}")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_OF_THE_CONNECTION = ("connection", "keep-alive", "proxy-connection")
_HOP_BY_HOP = ("connection", "host", "keep-alive", "te", "trailer", "upgrade")


class MalformedError(Exception):
    """A proxy does not take this request, or the answer is no HTTP/1.1. The text says why."""


class Request(NamedTuple):
    """A request. ``head`` is what the server gets, empty for a tunnel. ``length`` is the bytes of its body."""

    method: str
    host: Host
    target: str
    head: bytes
    length: int

    @property
    def is_tunnel(self) -> bool:
        """Tell whether the request asks for a tunnel."""
        return self.method == "CONNECT"

    def for_proxy(self) -> bytes:
        """Return the head that another proxy gets."""
        if self.is_tunnel:
            return f"CONNECT {self.host.authority} HTTP/1.1\r\nHost: {self.host.authority}\r\n\r\n".encode()
        return self.head.replace(b" ", f" http://{self.host.authority}".encode(), 1)


def read(head: bytes) -> Request:
    """Read the head of a request, with the empty line at its end. Raises :class:`MalformedError`."""
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not _TOKEN.fullmatch(words[0]) or not _VERSION.fullmatch(words[2]):
        raise MalformedError("the request line is not that of HTTP/1.1")
    method, target, version = words
    fields = [_field(line) for line in lines]
    if method == "CONNECT":
        host = _host(target)
        if not host.port:
            raise MalformedError(f"CONNECT names no port: {target!a}")
        return Request(method, host, "", b"", 0)
    host, path = _split(target)
    kept = [(name, value) for name, value in fields if not _is_hop_by_hop(name)]
    name = str(host) if host.port == 80 else host.authority
    text = f"{method} {path} {version}\r\nHost: {name}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in kept)
    return Request(method, host, path, f"{text}Connection: close\r\n\r\n".encode("latin-1"), _length(fields))


def _split(target: str) -> tuple[Host, str]:
    """Split an absolute URL into its host and the rest."""
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() != "http" or not _TARGET.fullmatch(target) or "#" in target:
        raise MalformedError(f"a proxy takes http://HOST/... and CONNECT, not {target[:200]!a}")
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    path = rest[len(authority) :]
    host = _host(authority)
    return host._replace(port=host.port or 80), path if path.startswith("/") else f"/{path}"


def _host(authority: str) -> Host:
    try:
        return parse(authority)
    except ValueError as error:
        raise MalformedError(str(error)) from error


def _field(line: str) -> tuple[str, str]:
    name, separator, value = line.partition(":")
    if not separator or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
        raise MalformedError("a header field is malformed")
    return name, value.strip(" \t")


def _is_hop_by_hop(name: str) -> bool:
    return name.lower() in _HOP_BY_HOP or name.lower().startswith("proxy-")


def _length(fields: list[tuple[str, str]]) -> int:
    """Return the bytes of the body. Only a length that is given once leaves no doubt about where the body ends."""
    said = [value for name, value in fields if name.lower() == "content-length"]
    if any(name.lower() == "transfer-encoding" for name, _ in fields):
        raise MalformedError("a body needs a Content-Length here, and no Transfer-Encoding")
    if len(said) > 1 or not all(re.fullmatch(r"[0-9]{1,18}", value) for value in said):
        raise MalformedError("the Content-Length is not a number")
    return int(said[0]) if said else 0


class Answer(NamedTuple):
    """The head of a server's answer.

    ``length`` is the bytes of the body, or None where the head does not tell. ``head`` is what the client gets.
    """

    status: int
    length: int | None
    head: bytes


def read_answer(head: bytes, method: str) -> Answer:
    """Read the head of an answer to a request. Raises :class:`MalformedError` where it is no such head."""
    first, *lines = head.decode("latin-1").split("\r\n")
    found = re.match(r"HTTP/1\.[01] ([1-5][0-9][0-9])(?: |$)", first)
    if found is None:
        raise MalformedError("the server does not answer in HTTP/1.1")
    status = int(found.group(1))
    fields = {line.partition(":")[0].strip().lower(): line.partition(":")[2].strip() for line in lines}
    if status < 200:  # the answer proper comes after it
        return Answer(status, 0, head)
    kept = [line for line in lines if line and line.partition(":")[0].strip().lower() not in _OF_THE_CONNECTION]
    closing = "\r\n".join((first, *kept, "Connection: close", "", "")).encode("latin-1")
    if method == "HEAD" or status in (204, 304):
        return Answer(status, 0, closing)
    length = "" if "transfer-encoding" in fields else fields.get("content-length", "")
    return Answer(status, int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None, closing)
