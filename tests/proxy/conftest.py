"""A proxy that serves one order, used like a builder would use it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest

from spoold.proxy import serving
from spoold.proxy.order import ACCEPTED, Order, Report, Rules
from tests.web import Web
from tests.web import serving as web_serving

LOOPBACK = ["127.0.0.0/8", "::1/128"]


class Proxy:
    """A proxy in a thread of this process. ``report`` ends its order."""

    def __init__(self, fetch: list[str], inside: list[str], bytes_: int, time: float) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.control, theirs = socket.socketpair()
        rules = Rules(hosts=fetch, inside=inside, setting="`[nix] fetch`", bytes=10**12, time=10**6)

        def serve() -> None:
            with theirs:
                serving.serve(theirs, lambda _: rules)

        self.thread = threading.Thread(target=serve, daemon=True)
        self.thread.start()
        order = Order(build="b", what="w", bytes=bytes_, time=time)
        socket.send_fds(self.control, [msgspec.json.encode(order)], [self.listener.fileno()])
        self.listener.close()
        assert self.control.recv(1) == ACCEPTED

    def connect(self) -> socket.socket:
        connection = socket.create_connection(self.address)
        connection.settimeout(60)
        return connection

    def ask(self, text: bytes) -> bytes:
        """Send a request. Return everything that comes back until the end."""
        with self.connect() as connection:
            connection.sendall(text)
            return everything(connection)

    def get(self, url: str, method: str = "GET") -> bytes:
        return self.ask(f"{method} {url} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def tunnel(self, authority: str) -> socket.socket:
        """Return a connection to a host. Raise :class:`ConnectionError` if the order has ended before."""
        connection = self.connect()
        connection.sendall(f"CONNECT {authority} HTTP/1.1\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += (piece := connection.recv(1))
            if not piece:
                connection.close()
                raise ConnectionAbortedError(head)
        assert head.startswith(b"HTTP/1.1 200 ")
        return connection

    def report(self) -> Report:
        self.control.shutdown(socket.SHUT_WR)
        return self.wait()

    def wait(self) -> Report:
        """Wait until a bound ends the order."""
        self.control.settimeout(60)
        return msgspec.json.decode(everything(self.control), type=Report)

    def close(self) -> None:
        self.control.close()
        self.thread.join(60)
        assert not self.thread.is_alive()


def everything(connection: socket.socket) -> bytes:
    found = b""
    try:
        while piece := connection.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


MakeProxy = Callable[..., Proxy]


@pytest.fixture
def proxy() -> Iterator[MakeProxy]:
    """Yield a function that makes a proxy, with a list of hosts, networks and bounds."""
    made: list[Proxy] = []

    def make(fetch: list[str], *, inside: list[str] = LOOPBACK, bytes_: int = 10**8, time: float = 300.0) -> Proxy:
        made.append(Proxy(fetch, inside, bytes_, time))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def web() -> Iterator[Web]:
    """Yield a web server."""
    with web_serving() as server:
        server.has("/x", b"content")
        yield server


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
