"""A binary cache over HTTP or HTTPS. A test can spoil its answers."""

from __future__ import annotations

import base64
import contextlib
import re
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

INFO = "nix-cache-info"
PIECE = 64 * 1024
Fault = Callable[["Handler"], None]


class Handler(SimpleHTTPRequestHandler):
    """Serve one directory. A request that matches a fault gets the fault's answer."""

    protocol_version = "HTTP/1.1"

    def __init__(self, cache: Cache, *arguments: object) -> None:
        self.cache = cache
        super().__init__(*arguments, directory=str(cache.directory))  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.cache.asked.append(self.path)
        if self.cache.login and self.headers.get("Authorization") != self.cache.login:
            self.refuse(401)
            return
        for pattern, fault in list(self.cache.faults):
            if re.search(pattern, self.path):
                fault(self)
                return
        super().do_GET()

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def refuse(self, status: int) -> None:
        """Answer with a status and no body."""
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, body: bytes, length: int | None = None) -> None:
        """Answer with bytes. Where fewer come than ``length`` announces, the connection ends."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        self.close_connection = length is not None

    @property
    def file(self) -> bytes:
        """Return the requested file."""
        return Path(self.translate_path(self.path)).read_bytes()


class Cache:
    """A running cache. ``asked`` has the paths of all requests, ``faults`` has patterns of paths and their faults."""

    def __init__(self, directory: Path, certificate: Path | None = None, login: str = "") -> None:
        self.directory = directory
        self.asked: list[str] = []
        self.faults: list[tuple[str, Fault]] = []
        self.ended = threading.Event()
        self.login = "Basic " + base64.b64encode(login.encode()).decode() if login else ""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, self))
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign] # tests kill clients in the middle
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End the cache and all requests that hang."""
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def asked_for(self, pattern: str) -> list[str]:
        """Return the requests that match a pattern."""
        return [path for path in self.asked if re.search(pattern, path)]


@contextlib.contextmanager
def serving(directory: Path, certificate: Path | None = None, login: str = "") -> Iterator[Cache]:
    """Serve a directory as a binary cache. ``login`` is USER:PASSWORD if the cache demands one."""
    cache = Cache(directory, certificate, login)
    try:
        yield cache
    finally:
        cache.close()


# -- faults


def status(number: int) -> Fault:
    """Answer with a status."""
    return lambda handler: handler.refuse(number)


def half(handler: Handler) -> None:
    """Send half of the announced body, and hang up."""
    body = handler.file
    handler.answer(body[: len(body) // 2], len(body))


def hang_up(handler: Handler) -> None:
    """Hang up without an answer."""
    handler.close_connection = True


def hang(handler: Handler) -> None:
    """Send the first bytes of the body and then nothing more."""
    body = handler.file
    handler.answer(body[:10], len(body))
    handler.cache.ended.wait()


def say_nothing(handler: Handler) -> None:
    """Neither answer nor hang up."""
    handler.cache.ended.wait()


def wait_for(event: threading.Event) -> Fault:
    """Answer once ``event`` is set."""

    def fault(handler: Handler) -> None:
        while not event.wait(0.05) and not handler.cache.ended.is_set():
            pass
        handler.answer(handler.file)

    return fault


def changed(handler: Handler) -> None:
    """Send an archive of the same length in which the first byte of a file's content differs."""
    body = bytearray(handler.file)
    for found in re.finditer(rb"contents(.{8})", body, re.DOTALL):
        if int.from_bytes(found.group(1), "little"):
            body[found.end()] ^= 1
            break
    handler.answer(bytes(body))


def garbage(handler: Handler) -> None:
    """Send an answer of the same length that is not an archive."""
    handler.answer(b"<" * len(handler.file))


def redirected(url: str) -> Fault:
    """Redirect the client to another cache."""

    def fault(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", url + handler.path)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return fault


# -- what caches need


def make_keys(directory: Path) -> Path:
    """Make a key pair, ``secret`` and ``public``, and return the directory."""
    names = [str(directory / "secret"), str(directory / "public")]
    argv = ["nix-store", "--store", str(directory), "--generate-binary-cache-key", "test-1", *names]
    subprocess.run(argv, check=True)
    return directory


def make_authority(directory: Path) -> tuple[Path, Path]:
    """Make a certificate authority. Return its certificate, and the certificate and key of a server on 127.0.0.1."""
    key, server_key = directory / "ca.key", directory / "server.key"
    authority, server = directory / "ca.pem", directory / "server.pem"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    new += ["-days", "2"]
    _run(*new, "-keyout", str(key), "-out", str(authority), "-subj", "/CN=authority of a test")
    signed = ["-CA", str(authority), "-CAkey", str(key), "-addext", "subjectAltName=IP:127.0.0.1"]
    _run(*new, "-keyout", str(server_key), "-out", str(server), "-subj", "/CN=127.0.0.1", *signed)
    with server.open("ab") as both:
        both.write(server_key.read_bytes())
    return authority, server


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)
