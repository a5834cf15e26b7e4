"""Web servers of a test's own on loopback, plain or with TLS: they tell what they were asked, and do as told."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers by the server's table, else with 404."""

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
    """Answer without end."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(100 * 1024**3))
    handler.end_headers()
    with contextlib.suppress(OSError):
        while not handler.server.ending.is_set():
            handler.wfile.write(bytes(65536))


def never(handler: Handler) -> None:
    """Answer with a first byte, and no second one."""
    handler.send(b"x", length=2)
    handler.server.ending.wait()


class Web(ThreadingHTTPServer):
    """A server; ``asked`` is what it was asked so far."""

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
        """Print nothing: clients that break off are what is tested."""


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Web]:
    """Yield a server that runs."""
    web = Web(context)
    thread = threading.Thread(target=web.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.ending.set()
        web.shutdown()
        web.server_close()
        thread.join()


@contextlib.contextmanager
def closed() -> Iterator[int]:
    """Yield a port at which nobody listens, and which nobody else gets meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


def certificate(directory: Path) -> ssl.SSLContext:
    """Make a certificate for localhost that nobody trusts, and what a server needs to use it."""
    names = ["-keyout", str(directory / "key"), "-out", str(directory / "certificate")]
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(
        ["openssl", "req", "-x509", *options, "-subj", "/CN=localhost", *names], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "certificate", directory / "key")
    return context
