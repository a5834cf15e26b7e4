"""TLS in a tunnel asks for the host of the tunnel, and for no other one at the same address."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold.proxy.greeting import LARGEST, DisguiseError, Greeting
from spoold.proxy.order import Trouble
from tests import web as webs
from tests.proxy.conftest import MakeProxy
from tests.web import Web


def hello(name: str | None) -> bytes:
    """Return what a client of TLS sends first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


def spread(record: bytes, size: int) -> bytes:
    """Spread a record's message over several."""
    message = record[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(record[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def encrypted(record: bytes) -> bytes:
    """Return a record with one more extension, in which an encrypted name would stand."""
    extension = 0xFE0D.to_bytes(2, "big") + (4).to_bytes(2, "big") + b"\0\0\0\0"
    message = bytearray(record[5:])
    at = 4 + 2 + 32
    at += 1 + message[at]
    at += 2 + int.from_bytes(message[at : at + 2], "big")
    at += 1 + message[at]
    message[at : at + 2] = (int.from_bytes(message[at : at + 2], "big") + len(extension)).to_bytes(2, "big")
    message += extension
    message[1:4] = (len(message) - 4).to_bytes(3, "big")
    return record[:3] + len(message).to_bytes(2, "big") + bytes(message)


def bytewise(said: bytes) -> bytes:
    """Return what is passed on of a message that comes byte by byte; nothing may be before it is known."""
    greeting, passed = Greeting("a.example"), b""
    for at in range(len(said)):
        passed += greeting.take(said[at : at + 1])
        assert greeting.is_known or not passed
    return passed


@pytest.mark.parametrize("said", [hello("a.example"), hello("A.Example"), hello(None), b"GET / HTTP/1.0\r\n\r\n", b"x"])
def test_what_names_no_other_host_is_passed_on_as_it_came(said: bytes) -> None:
    greeting = Greeting("a.example")
    assert greeting.take(said) == said
    assert greeting.take(b"more") == b"more"
    assert bytewise(said) == said


def test_a_message_in_several_records_is_one() -> None:
    said = spread(hello("a.example"), 100)
    assert Greeting("a.example").take(said) == said


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (hello("b.example"), "TLS asks for 'b.example' in a tunnel to a.example"),
        (spread(hello("b.example"), 100), "TLS asks for 'b.example'"),
        (hello("a.example.b.example"), "TLS asks for"),
        (encrypted(hello("a.example")), "TLS encrypts the name"),
        (hello("a.example")[:5] + b"\x01\0\0\x02\x03\x03", "malformed"),
        (spread(hello("a.example"), 1) + bytes(LARGEST), "too long"),
    ],
)
def test_what_asks_for_another_host_is_not_passed_on(said: bytes, reason: str) -> None:
    with pytest.raises(DisguiseError, match=reason):
        Greeting("a.example").take(said)
    with pytest.raises(DisguiseError, match=reason):
        bytewise(said)


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Web]:
    with webs.serving(webs.certificate(tmp_path)) as server:
        server.has("/x", b"content")
        yield server


def get(tunnel: socket.socket, name: str) -> bytes:
    context = ssl._create_unverified_context()  # noqa: S323 - who answers is not what this is about
    with context.wrap_socket(tunnel, server_hostname=name) as secure:
        secure.sendall(b"GET /x HTTP/1.0\r\n\r\n")
        return secure.recv(10_000)


def test_a_tunnel_is_for_its_host_alone(proxy: MakeProxy, secured: Web) -> None:
    made = proxy([f"localhost:{secured.port}"])
    with made.tunnel(f"localhost:{secured.port}") as tunnel:
        assert b" 200 " in get(tunnel, "localhost")
    with made.tunnel(f"localhost:{secured.port}") as tunnel, pytest.raises((ssl.SSLError, OSError)):
        get(tunnel, "evil.example")
    good, bad = made.report().passages
    assert good.trouble is Trouble.NONE
    assert (bad.trouble, bad.sent) == (Trouble.MALFORMED, 0)
    assert bad.said == "TLS asks for 'evil.example' in a tunnel to localhost"
    assert secured.asked == ["GET /x"]
