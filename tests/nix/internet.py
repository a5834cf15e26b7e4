"""The Internet of a test: one server on loopback that answers for every host, over HTTP and HTTPS, and for git.

Fetchers name real hosts, such as github.com. The proxy for downloads cannot be told other addresses for them, but it
goes through a proxy of the operator's network where the environment names one. This server is that proxy. It connects
to nobody, and answers itself, with a certificate for the host that it was asked for.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from tests import web


class Handler(BaseHTTPRequestHandler):
    """Answers as ``server.files`` says, by the git repositories below ``server.repositories``, else with 404."""

    protocol_version = "HTTP/1.1"
    server: Internet
    host = ""  # of the tunnel, "" outside one

    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.host = self.path.rpartition(":")[0]
        try:
            self.request = self.server.context.wrap_socket(self.connection, server_side=True)
        except OSError:  # whoever asked hangs up
            self.close_connection = True
            return
        self.setup()

    def finish(self) -> None:
        super().finish()
        self.connection.close()  # the one of TLS, which the server does not know

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        where = f"{self.host or url.hostname}{url.path}"
        self.server.asked.append(f"{self.command} {where}")
        if ".git/" in url.path and (self.server.repositories / where.partition(".git/")[0]).exists():
            self._git(where, url.query)
            return
        found = self.server.files.get(where)
        if found is None:
            self.send(404, b"none")
        elif isinstance(found, str):
            self.send(302, b"", Location=found)
        else:
            self.send(200, found)

    do_HEAD = do_POST = do_GET  # noqa: N815 - the library's names

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _git(self, where: str, query: str) -> None:
        """Let git serve a repository, as a CGI program."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        said = {name: self.headers.get(name, "") for name in ("Content-Type", "Content-Encoding", "Git-Protocol")}
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.server.repositories),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": f"/{where.replace('.git/', '/', 1)}",
            "QUERY_STRING": query,
            "CONTENT_TYPE": said["Content-Type"],
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": said["Content-Encoding"],
            "HTTP_GIT_PROTOCOL": said["Git-Protocol"],
        }
        answer = subprocess.run(
            ["git", "-c", "safe.directory=*", "http-backend"],
            input=body,
            env=environment,
            capture_output=True,
            check=True,
        ).stdout
        head, _, rest = answer.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send(int(fields.pop("Status", "200").split()[0]), rest, **fields)

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


class Internet(ThreadingHTTPServer):
    """All hosts. ``files`` are bodies, or URLs to redirect to, by HOST/PATH. ``asked`` is what was asked for."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes | str] = {}
        self.asked: list[str] = []
        self.repositories = directory / "repositories"  # bare ones, below the names of their hosts
        self.authority = directory / "authority.pem"
        self.context = _certified(directory)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *arguments: object) -> None:
        """Print nothing: clients that break off are what is tested."""


def _certified(directory: Path) -> ssl.SSLContext:
    """Return a context that makes a certificate for each host that is asked for, by an authority of its own."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    authority, authority_key = directory / "authority.pem", directory / "authority.key"
    made = ["openssl", "req", "-x509", *key, "-subj", "/CN=authority of a test"]
    subprocess.run([*made, "-keyout", authority_key, "-out", authority], check=True, capture_output=True)
    making, contexts = threading.Lock(), dict[str, ssl.SSLContext]()

    def for_host(name: str) -> ssl.SSLContext:
        with making:
            if name not in contexts:
                file = directory / f"{name}.pem"
                signed = ["-CA", str(authority), "-CAkey", str(authority_key), "-addext", f"subjectAltName=DNS:{name}"]
                command = ["openssl", "req", "-x509", *key, "-subj", f"/CN={name}", *signed]
                subprocess.run([*command, "-keyout", file, "-out", f"{file}.crt"], check=True, capture_output=True)
                file.write_bytes(Path(f"{file}.crt").read_bytes() + file.read_bytes())
                contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                contexts[name].load_cert_chain(file)
        return contexts[name]

    def chosen(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        connection.context = for_host(name or "localhost")

    whole = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    whole.sni_callback = chosen
    return whole


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[Internet]:
    """Yield the Internet of a test, with its certificates and repositories in a directory."""
    made = Internet(directory)
    with web.running(made):
        yield made
