"""Heads of requests are read strictly, and written anew."""

from __future__ import annotations

import pytest

from spoold.model.hosts import Host
from spoold.proxy.request import Answer, MalformedError, read, read_answer


def test_a_request_is_written_anew() -> None:
    asked = read(
        b"GET http://Mirror.Corp:8080/a?b=c HTTP/1.1\r\nHost: elsewhere\r\nAccept: */*\r\nProxy-Connection: x\r\n"
        b"Connection: keep-alive, accept\r\nUpgrade: h2c\r\n\r\n"
    )
    assert asked.host == Host("mirror.corp", 8080)
    assert asked.target == "/a?b=c"
    assert asked.head == b"GET /a?b=c HTTP/1.1\r\nHost: mirror.corp:8080\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    assert not asked.is_tunnel


@pytest.mark.parametrize(
    ("target", "path"), [("http://h", "/"), ("http://h/", "/"), ("HTTP://h?x", "/?x"), ("http://h/%2e", "/%2e")]
)
def test_what_is_left_of_a_url(target: str, path: str) -> None:
    asked = read(f"HEAD {target} HTTP/1.0\r\n\r\n".encode())
    assert asked.head.startswith(f"HEAD {path} HTTP/1.0\r\nHost: h\r\n".encode())


def test_a_tunnel() -> None:
    asked = read(b"CONNECT [2606:4700::1111]:443 HTTP/1.1\r\n\r\n")
    assert asked.is_tunnel
    assert asked.host == Host("2606:4700::1111", 443)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GET",
        b"GET / HTTP/1.1",
        b"GET http://h/ HTTP/2.0",
        b"GET  http://h/ HTTP/1.1",
        b"GET http://h/a b HTTP/1.1",
        b"GET https://h/ HTTP/1.1",
        b"GET ftp://h/ HTTP/1.1",
        b"GET http:///x HTTP/1.1",
        b"GET http://user@h/ HTTP/1.1",
        b"GET http://h:0/ HTTP/1.1",
        b"GET http://h\\@evil/ HTTP/1.1",
        b"GET http://h%00/ HTTP/1.1",
        b"GET http://h/\x00 HTTP/1.1",
        b"GET http://h/#x HTTP/1.1",
        b"CONNECT h HTTP/1.1",
        b"CONNECT http://h:443 HTTP/1.1",
        b"CONNECT ::1:443 HTTP/1.1",
        b"GET http://h/ HTTP/1.1\r\nno colon",
        b"GET http://h/ HTTP/1.1\r\n folded: x",
        b"GET http://h/ HTTP/1.1\r\nA: b\r\n c",
        b"GET http://h/ HTTP/1.1\r\nA : b",
        b"GET http://h/ HTTP/1.1\r\nA: b\nInjected: c",
        b"POST http://h/ HTTP/1.1\r\nTransfer-Encoding: chunked",
        b"POST http://h/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2",
        b"POST http://h/ HTTP/1.1\r\nContent-Length: +1",
        b"POST http://h/ HTTP/1.1\r\nContent-Length: 1, 1",
    ],
)
def test_what_is_no_request(head: bytes) -> None:
    with pytest.raises(MalformedError):
        read(head + b"\r\n\r\n")


CLOSE = b"Connection: close\r\n\r\n"


def test_answers() -> None:
    sized, chunked = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
    assert read_answer(sized + b"\r\n", "GET") == Answer(200, 5, sized + CLOSE)
    assert read_answer(sized + b"\r\n", "HEAD") == Answer(200, 0, sized + CLOSE)
    assert read_answer(chunked + b"\r\n", "GET") == Answer(200, None, chunked + CLOSE)
    assert read_answer(b"HTTP/1.1 304\r\n\r\n", "GET") == Answer(304, 0, b"HTTP/1.1 304\r\n" + CLOSE)
    before = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    assert read_answer(before, "GET") == Answer(103, 0, before)
    with pytest.raises(MalformedError):
        read_answer(b"SSH-2.0-OpenSSH\r\n\r\n", "GET")


def test_an_answer_says_that_the_connection_ends_whatever_the_server_says() -> None:
    """A client would send its next request on a connection that is being closed."""
    said = b"HTTP/1.1 302 Found\r\nconnection : keep-alive\r\nKeep-Alive: timeout=5\r\nLocation: http://x/\r\n\r\n"
    assert read_answer(said, "GET").head == b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\n" + CLOSE
