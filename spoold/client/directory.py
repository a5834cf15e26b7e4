"""A spool that is a directory on this host, which may be an NFS mount.

Spec: spool-layout.md, "What a client may rely on". A client may not list ``done/``, so it opens each name that it waits
for. Over NFS a new name may be seen late, because its absence is cached. A client can do nothing to change that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Collection, Iterator
from typing import BinaryIO

from spoold.client import names
from spoold.client.errors import AnswerError, NoSpoolError, RequestError, UnreachableError
from spoold.client.transport import MOST, Dropped, digest

LEASED = 2.0  # seconds that the holder of a lease on an answer has to release it; a file server does so
PAUSE = 0.01  # seconds between two tries to open a leased file
FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)  # there is nothing of that name
NAMELESS = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC


class Directory:
    """The spool with the root directory ``root``."""

    def __init__(self, root: str) -> None:
        self.root = root

    def require(self) -> None:
        """Raise :class:`NoSpoolError` where there is no spool for this user, else as where it cannot be reached."""
        try:
            if stat.S_ISDIR(os.stat(self.path("incoming")).st_mode):
                return
        except PermissionError as error:
            reason = f"{self.root} is closed to this user: ask its operator for the right to enter its directories"
            raise NoSpoolError(reason) from error
        except OSError as error:
            if error.errno not in NOTHING:
                reason = f"{self.root} cannot be reached: {error.strerror}. Try again once its file system answers"
                raise UnreachableError(reason) from error
        except ValueError:
            pass  # no file has such a name
        raise NoSpoolError(f"{self.root} holds no spool: name one with --spool or $SPOOLD_SPOOL")

    def path(self, *parts: str) -> str:
        """Return a path in the spool."""
        return os.path.join(self.root, *parts)

    def drop(self, id_: str, data: bytes) -> Dropped:
        """Put a request into the drop box under its final name in one step, so that nobody sees half of it.

        If another user's file has that name, the request gets a name that nobody can guess. So nobody can block a
        submission by taking its name.
        """
        self.require()
        with self._written(id_, data) as (path, uid):
            name = self._link(path, id_, data)
        return Dropped(id_, name, uid, digest(data))

    @contextlib.contextmanager
    def _written(self, id_: str, data: bytes) -> Iterator[tuple[str, int]]:
        """Write a file; yield a path through which it can be linked, and the uid of its owner.

        The file has no name until it is linked. So a client that is killed leaves no file behind, and no file with two
        names, which spoold would refuse. NFS and some other file systems do not support files without a name. There the
        file has a private name until it is complete.
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
        """Link a file under its final name, and return that name. Accept a file of ours with the same content."""
        name = f"{id_}.json"
        for _ in range(2):  # spoold may take in the file with that name between our two looks at it
            with contextlib.suppress(FileExistsError):
                link(path, self.path("incoming", name))
                return name
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(self.path("incoming", name)).st_uid != os.geteuid():
                    break
                if self._holds(name, data):
                    return name
                raise RequestError(f"{name} is already in {self.path('incoming')}: choose another --id")
        name = f"{names.unguessable(id_)}.json"
        link(path, self.path("incoming", name))
        return name

    def _holds(self, name: str, data: bytes) -> bool:
        with open(self.path("incoming", name), "rb") as file:
            return file.read(len(data) + 1) == data

    def answers(self, names: Collection[str], patience: float) -> dict[str, bytes]:  # noqa: ARG002 - it is quick to ask
        """Look for each answer once."""
        found = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                try:
                    found[name] = read(self.path("done", name))
                except PermissionError:
                    found[name] = b""
        return found

    def is_dropped(self, file: str) -> bool:
        """Tell whether a file of that name is still in the drop box."""
        return os.path.lexists(self.path("incoming", file))

    def look(self, id_: str) -> tuple[bytes | None, bool]:
        """Return the response, or the response so far.

        Look for the response twice, as it may come between the looks.
        """
        self.require()
        done, so_far = self.path("done", names.response_name(id_)), self.path("progress", f"{id_}.json")
        for path in (done, so_far, done):
            with contextlib.suppress(FileNotFoundError):
                try:
                    return read(path), True
                except PermissionError:
                    raise AnswerError(f"{path} belongs to another user") from None
        return None, self.is_dropped(f"{id_}.json")

    def cancel(self, id_: str) -> None:
        """Drop a file that asks for the cancellation, under a name that nobody else can have taken."""
        self.require()
        with self._written(id_, f"{id_}\n".encode()) as (path, _):
            link(path, self.path("incoming", f"{names.unguessable(id_)}.cancel"))

    def tar(self, id_: str, size: int) -> bytes | None:
        """Return the tar beside a response."""
        try:
            return read(self.path("done", names.tar_name(id_)), size + 1)
        except (FileNotFoundError, PermissionError):
            return None

    def close(self) -> None:
        """Do nothing: this transport holds nothing open."""


def link(path: str, name: str) -> None:
    """Give a file one more name, or its first one.

    ``path`` may be the ``/proc`` path of its descriptor (see open(2)).
    """
    directory = os.open(os.path.dirname(name), os.O_PATH | os.O_CLOEXEC)
    try:  # given any directory descriptor, os.link() calls linkat(2) and lets it follow symbolic links
        os.link(path, os.path.basename(name), src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        os.close(directory)


def read(path: str, most: int | None = None) -> bytes:
    """Return an answer: all of it, or its first ``most`` bytes.

    Raises :class:`AnswerError` where it is larger than any response, if ``most`` is not given. The file may belong to
    the user whose answer it is. That user may have changed it, or may hold a lease on it (fcntl(2), F_SETLEASE).
    """
    try:
        with _opened(path) as file:
            data = file.read(MOST + 1 if most is None else most)
    except BlockingIOError:
        raise AnswerError(f"{path} cannot be read now: another process holds a lease on the file") from None
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
            time.sleep(PAUSE)  # nothing announces the end of a lease
