"""Web servers on loopback for one test, plain or with TLS. They record requests and answer as told."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answer by the server's table, else with 404."""

    protocol_version = "HTTP/1.1"
    server: Web

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.headers.append(dict(self.headers))
        answer = self.server.answers.get(self.path)
        if answer is None:
            self.send(b"none", 404)
        else:
            answer(self)

    do_HEAD = do_POST = do_CONNECT = do_GET  # noqa: N815 - the library's names

    def send(self, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


def endless(handler: Handler) -> None:
    """Send an answer that does not end."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(100 * 1024**3))
    handler.end_headers()
    with contextlib.suppress(OSError):
        while not handler.server.ending.is_set():
            handler.wfile.write(bytes(65536))


def never(handler: Handler) -> None:
    """Send the first byte of an answer and never the second."""
    handler.send(b"x", length=2)
    handler.server.ending.wait()


class Web(ThreadingHTTPServer):
    """A server. ``asked`` has the requests so far."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.ending = threading.Event()
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def has(self, path: str, body: bytes) -> None:
        self.answers[path] = lambda handler: handler.send(body)

    def handle_error(self, *arguments: object) -> None:
        """Print nothing, because tests break off connections on purpose."""


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Web]:
    """Yield a running server."""
    web = Web(context)
    with running(web):
        try:
            yield web
        finally:
            web.ending.set()


@contextlib.contextmanager
def running(server: socketserver.BaseServer) -> Iterator[None]:
    """Have a server answer inside the block."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def closed() -> Iterator[int]:
    """Yield a port on which nobody listens, and which nobody else gets meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


def certificate(directory: Path) -> ssl.SSLContext:
    """Make a certificate for localhost that nobody trusts. Return what a server needs to use it."""
    names = ["-keyout", str(directory / "key"), "-out", str(directory / "certificate")]
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(
        ["openssl", "req", "-x509", *options, "-subj", "/CN=localhost", *names], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "certificate", directory / "key")
    return context
