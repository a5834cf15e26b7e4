"""A spool that is a directory here, be it mounted by NFS.

Spec: spool-layout.md, "What a client may rely on". A client may not list ``done/``, so it opens the names that it waits
for. Over NFS a new name may be seen late, since its absence is cached, and nothing a client may do changes that.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from typing import BinaryIO

from spoold.client import names
from spoold.client.errors import AnswerError, NoSpoolError, RequestError
from spoold.client.transport import MOST, Dropped, digest

LEASED = 2.0  # seconds in which whoever holds a lease on an answer may give it up: a file server does
PAUSE = 0.01  # seconds
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
NAMELESS = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC


class Directory:
    """The spool whose root is ``root``."""

    def __init__(self, root: str) -> None:
        self.root = root

    def require(self) -> None:
        """Raise :class:`NoSpoolError` where there is no spool."""
        if not os.path.isdir(self.path("incoming")):
            raise NoSpoolError(f"{self.root} holds no spool: name one with --spool or $SPOOLD_SPOOL")

    def path(self, *parts: str) -> str:
        """Return a path in the spool."""
        return os.path.join(self.root, *parts)

    def drop(self, id_: str, data: bytes) -> Dropped:
        """Put it there under its final name in one step, so that nobody sees half of it.

        Where another user has that name, it is one that nobody can guess: so nobody can keep us from it.
        """
        self.require()
        with self._written(id_, data) as (path, uid):
            name = self._link(path, id_, data)
        return Dropped(id_, name, uid, digest(data))

    @contextlib.contextmanager
    def _written(self, id_: str, data: bytes) -> Iterator[tuple[str, int]]:
        """Write a file, and yield a path to give it a name by, and whose it is.

        It has no name until then: so whoever is killed leaves nothing, and nothing with two names, which is refused. A
        file server and some other file systems have no such files. There it has a private name meanwhile.
        """
        private = ""
        try:
            descriptor = os.open(self.path("incoming"), NAMELESS, 0o600)
        except OSError:
            private = self.path("incoming", f".{id_[:100]}.{names.unguessable('')[1:9]}.tmp")
            descriptor = os.open(private, FLAGS, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
                yield private or f"/proc/self/fd/{descriptor}", os.fstat(descriptor).st_uid
        finally:
            if private:
                os.unlink(private)

    def _link(self, path: str, id_: str, data: bytes) -> str:
        """Give a file its name, and return that; the same file, dropped again, is there already."""
        name = f"{id_}.json"
        for _ in range(2):  # what lies there may be taken in between two looks at it
            with contextlib.suppress(FileExistsError):
                link(path, self.path("incoming", name))
                return name
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(self.path("incoming", name)).st_uid != os.geteuid():
                    break
                if self._holds(name, data):
                    return name
                raise RequestError(f"{name} lies in {self.path('incoming')} already: choose another --id")
        name = f"{names.unguessable(id_)}.json"
        link(path, self.path("incoming", name))
        return name

    def _holds(self, name: str, data: bytes) -> bool:
        with open(self.path("incoming", name), "rb") as file:
            return file.read(len(data) + 1) == data

    def answers(self, names: Collection[str], patience: float) -> dict[str, bytes]:  # noqa: ARG002 - it is quick to ask
        """Look for each once."""
        found = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                try:
                    found[name] = read(self.path("done", name))
                except PermissionError:
                    found[name] = b""
        return found

    def is_dropped(self, file: str) -> bool:
        """Tell whether a file of that name is in the drop box still."""
        return os.path.lexists(self.path("incoming", file))

    def look(self, id_: str) -> tuple[bytes | None, bool]:
        """Return the response, or the response so far; it may have been finished between two looks."""
        self.require()
        done, so_far = self.path("done", names.response_name(id_)), self.path("progress", f"{id_}.json")
        for path in (done, so_far, done):
            with contextlib.suppress(FileNotFoundError):
                try:
                    return read(path), True
                except PermissionError:
                    raise AnswerError(f"{path} is not yours to read") from None
        return None, self.is_dropped(f"{id_}.json")

    def cancel(self, id_: str) -> None:
        """Drop a file that asks for it, whole, under a name that nobody else can have taken."""
        self.require()
        with self._written(id_, f"{id_}\n".encode()) as (path, _):
            link(path, self.path("incoming", f"{names.unguessable(id_)}.cancel"))

    def tar(self, id_: str, size: int) -> bytes | None:
        """Return what lies beside a response."""
        try:
            return read(self.path("done", names.tar_name(id_)), size + 1)
        except (FileNotFoundError, PermissionError):
            return None

    def close(self) -> None:
        """Nothing is held."""


def link(path: str, name: str) -> None:
    """Give a file another name, also one that has none; ``path`` may be that of its descriptor (see open(2))."""
    directory = os.open(os.path.dirname(name), os.O_PATH | os.O_CLOEXEC)
    try:  # with the descriptor of any directory os.link() calls linkat(2), and has it follow links
        os.link(path, os.path.basename(name), src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        os.close(directory)


def read(path: str, most: int | None = None) -> bytes:
    """Return what an answer holds, of ``most`` bytes; without it all, and :class:`AnswerError` for more than any has.

    It may be its owner's, who may have changed it, or hold a lease on it (fcntl(2), F_SETLEASE).
    """
    try:
        with _opened(path) as file:
            data = file.read(MOST + 1 if most is None else most)
    except BlockingIOError:
        raise AnswerError(f"{path} cannot be read now: someone holds a lease on it") from None
    if most is None and len(data) > MOST:
        raise AnswerError(f"{path} is larger than any response")
    return data


def _opened(path: str) -> BinaryIO:
    deadline = time.monotonic() + LEASED
    while True:
        try:
            return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(PAUSE)  # nothing tells when a lease ends
