"""A real NFS server in user space (nfs-ganesha), and its clients (nfs-rs), each with its own uid.

No kernel module, mount or service is needed. The server listens on loopback, and ends with its fixture.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar, cast

import nfs_rs

from tests.engines import unavailable
from tests.remote.room import PATIENCE, free_port

T = TypeVar("T")
CONFIG = """
NFS_CORE_PARAM {{ Protocols = 4; NFS_Port = {port}; Bind_addr = 127.0.0.1; Enable_NLM = false; Enable_RQUOTA = false; }}
NFSv4 {{ Graceless = true; Minor_Versions = 1, 2; RecoveryBackend = fs; RecoveryRoot = {state}; Lease_Lifetime = 60;
    Grace_Period = 10; Only_Numeric_Owners = true; }}
EXPORT {{ Export_Id = 1; Path = {path}; Pseudo = /spool; Access_Type = RW; Squash = {squash}; SecType = sys;
    Protocols = 4; Transports = TCP; FSAL {{ Name = VFS; }} }}
MDCACHE {{ Dir_Chunk = 0; }}
"""


class Server:
    """An export of one directory. ``state`` is a directory for the server's own files."""

    def __init__(self, path: Path, state: Path, squash: str = "No_Root_Squash") -> None:
        (state / "recovery").mkdir(parents=True)
        self.state = state
        self.port = free_port()
        config = CONFIG.format(port=self.port, state=state / "recovery", path=path, squash=squash)
        (state / "ganesha.conf").write_text(config)
        self.start()

    def start(self) -> None:
        """Start the server and wait until it listens."""
        files = {"-f": "ganesha.conf", "-L": "log", "-p": "pid"}
        command = [
            "ganesha.nfsd",
            "-F",
            *(word for key, name in files.items() for word in (key, str(self.state / name))),
        ]
        with (self.state / "output").open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        deadline = time.monotonic() + PATIENCE
        while not _answers(self.port):
            assert time.monotonic() < deadline, (self.state / "log").read_text()[-3000:]
            assert self._process.poll() is None, (self.state / "log").read_text()[-3000:]
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill the server in the middle of its work."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def client(self, uid: int, gid: int) -> Client:
        """Return a client whose requests all have this uid and gid."""
        return connect(self.port, uid, gid)


# Errors after which nobody knows whether the operation was done.
LOST = (nfs_rs.NfsRetryableError, nfs_rs.NfsUncertainOutcomeError, nfs_rs.NfsFileCloseError)


def connect(port: int, uid: int, gid: int) -> Client:
    """Return a client of the server on this port."""
    options = f"version=4.1&noresvport=true&nfsport={port}"
    return Client(nfs_rs.Client.connect(f"nfs://127.0.0.1/spool?{options}", uid=uid, gid=gid))


class Client:
    """A user's client. If an answer was lost (which happens now and then) it looks, and asks again."""

    def __init__(self, raw: nfs_rs.Client) -> None:
        self.raw = raw

    def put(self, path: str, data: bytes, mode: str = "wb") -> None:
        def write() -> None:
            with self.raw.open(path, mode) as file:
                file.write(data)

        self.again(write)

    @contextlib.contextmanager
    def open(self, path: str, mode: str) -> Iterator[nfs_rs.File]:
        """Open a file. A lost answer to its close doesn't matter."""
        file = self.again(lambda: self.raw.open(path, mode))
        try:
            yield file
        finally:
            with contextlib.suppress(*LOST):
                file.close()

    def write_at(self, file: nfs_rs.File, data: bytes, offset: int) -> None:
        """Write into an open file, and wait until the server has the data."""
        self.again(lambda: file.write_at(data, offset))
        self.again(file.flush)

    def read(self, path: str) -> bytes:
        def read() -> bytes:
            with self.raw.open(path, "rb") as file:
                return bytes(file.read())

        return self.again(read)

    def names(self, path: str) -> list[str]:
        return self.again(lambda: self.raw.listdir(path))

    def exists(self, path: str) -> bool:
        return self.again(lambda: self.raw.exists(path))

    def rename(self, source: str, target: str) -> None:
        self.again(lambda: self.raw.rename(source, target), is_done=lambda: not self.exists(source))

    def link(self, source: str, target: str) -> None:
        self.again(lambda: self.raw.link(source, target), is_done=lambda: self.exists(target))

    def symlink(self, text: str, path: str) -> None:
        """Make a symbolic link at ``path``."""
        directory, name = os.path.split(path)
        self.again(lambda: self.raw.symlink(text, path), is_done=lambda: name in self.names(directory))

    def readlink(self, path: str) -> str:
        return self.again(lambda: self.raw.readlink(path))

    def unlink(self, path: str) -> None:
        self.again(lambda: self.raw.unlink(path), is_done=lambda: not self.exists(path))

    def chmod(self, path: str, mode: int) -> None:
        self.again(lambda: self.raw.chmod(path, mode))

    def utime(self, path: str, ns: int) -> None:
        self.again(lambda: self.raw.utime(path, ns=(ns, ns)))

    @staticmethod
    def again(operation: Callable[[], T], is_done: Callable[[], bool] = lambda: False) -> T:
        for _ in range(10):
            try:
                return operation()
            except LOST:
                if is_done():
                    return cast("T", None)  # only for operations that return nothing
        return operation()


def need() -> None:
    """Skip or fail where the server is not installed."""
    if shutil.which("ganesha.nfsd") is None or not list(Path("/usr/lib").glob("*/ganesha/libfsalvfs.so")):
        unavailable("not installed: nfs-ganesha, nfs-ganesha-vfs")


@contextlib.contextmanager
def serving(path: Path, state: Path, squash: str = "No_Root_Squash") -> Iterator[Server]:
    """Serve ``path`` in the block."""
    need()
    server = Server(path, state, squash)
    try:
        yield server
    finally:
        server.stop()


def _answers(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError, TimeoutError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False
