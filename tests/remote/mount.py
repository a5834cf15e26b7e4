"""Mount an export through FUSE, for programs that need paths: ``python -m tests.remote.mount PORT AT``.

It acts like a kernel that caches nothing (``lookupcache=none,noac``) and whose locks hold on its own host only. Every
request is root's. The top of the export may contain only directories.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import mfusepy
import nfs_rs

from tests.remote.nfs import connect

UTIME_NOW = (1 << 30) - 1  # in place of ns: what utimensat(2) says for "now"
KINDS = {
    nfs_rs.FileType.DIRECTORY: 0o040000,
    nfs_rs.FileType.FILE: 0o100000,
    nfs_rs.FileType.SYMLINK: 0o120000,
}


def as_a_kernel_reports(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an operation so that its errors are numbers. If the server is away it is EIO, as on a soft mount."""

    def call(export: Export, *arguments: Any, **options: Any) -> Any:
        try:
            return operation(export, *arguments, **options)
        except (nfs_rs.NfsError, OSError) as error:
            number = getattr(error, "errno", None)
            if isinstance(number, int):
                raise mfusepy.FuseOSError(number) from error
            export.connect()
            raise mfusepy.FuseOSError(errno.EIO) from error

    return call


class Export(mfusepy.Operations):  # type: ignore[misc]
    """Each operation is one request or a few. Open files are the client's."""

    use_ns = True

    def __init__(self, port: int) -> None:
        self._port = port
        self._client = connect(port, 0, 0)
        self._raw = self._client.raw
        self._open: dict[int, nfs_rs.File] = {}
        self._last = 0

    def connect(self) -> None:
        """Connect again, if there is a server. Files that were open are lost."""
        with contextlib.suppress(nfs_rs.NfsError, OSError):
            self._client = connect(self._port, 0, 0)
            self._raw = self._client.raw

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:  # noqa: ARG002
        if path == "/":  # this client cannot ask for the root
            return {"st_mode": 0o040711, "st_nlink": 2, "st_ino": 1}
        found = self._client.again(lambda: self._raw.stat(path))
        return {
            "st_mode": KINDS.get(found.type, 0) | (found.mode & 0o7777),
            "st_ino": found.fileid,
            "st_nlink": found.nlink,
            "st_uid": found.uid,
            "st_gid": found.gid,
            "st_size": found.size,
            "st_atime": found.atime,
            "st_mtime": found.mtime,
            "st_ctime": found.ctime,
        }

    def readdir(self, path: str, fh: int) -> Iterable[tuple[str, dict[str, int], int]]:  # noqa: ARG002
        found = self._client.again(lambda: list(self._raw.scandir(path)))
        # readdir would skip names with inode number 0
        here = [(name, {"st_mode": 0o040000, "st_ino": 1}, 0) for name in (".", "..")]
        return here + [(each.name, {"st_mode": KINDS[each.info.type], "st_ino": each.info.fileid}, 0) for each in found]

    def statfs(self, path: str) -> dict[str, int]:  # noqa: ARG002
        plenty = 1 << 30
        names = ("f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail")
        return {"f_bsize": 4096, "f_frsize": 4096, "f_namemax": 255, **dict.fromkeys(names, plenty)}

    # -- open files

    def open(self, path: str, flags: int) -> int:
        return self._keep(path, "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "r+b")

    def create(self, path: str, mode: int, fi: object = None) -> int:  # noqa: ARG002
        self._client.put(path, b"")  # the kernel has seen that there was none; this client has no exclusive create
        self._client.chmod(path, mode & 0o7777)
        return self._keep(path, "r+b")

    def _keep(self, path: str, mode: str) -> int:
        self._last += 1
        self._open[self._last] = self._client.again(lambda: self._raw.open(path, mode))
        return self._last

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:  # noqa: ARG002
        return self._client.again(lambda: self._open[fh].read_at(offset, size))

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:  # noqa: ARG002
        return self._client.again(lambda: self._open[fh].write_at(data, offset))

    def flush(self, path: str, fh: int) -> int:  # noqa: ARG002
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:  # noqa: ARG002
        if self._open[fh].writable():
            self._client.again(self._open[fh].flush)
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:  # noqa: ARG002
        return 0

    def release(self, path: str, fh: int) -> int:  # noqa: ARG002
        with contextlib.suppress(nfs_rs.NfsError):  # the server may be gone
            self._open.pop(fh).close()
        return 0

    # -- names

    def unlink(self, path: str) -> int:
        return self._do(lambda: self._client.unlink(path))

    def rename(self, old: str, new: str) -> int:
        return self._do(lambda: self._client.rename(old, new))

    def link(self, target: str, source: str) -> int:
        return self._do(lambda: self._client.link(source, target))

    def symlink(self, target: str, source: str) -> int:
        return self._do(lambda: self._client.symlink(source, target))

    def readlink(self, path: str) -> str:
        return self._client.readlink(path)

    def mkdir(self, path: str, mode: int) -> int:
        self._raw.mkdir(path)
        return self.chmod(path, mode)

    def rmdir(self, path: str) -> int:
        return self._do(lambda: self._raw.rmdir(path))

    def chmod(self, path: str, mode: int) -> int:
        return self._do(lambda: self._client.chmod(path, mode & 0o7777))

    def chown(self, path: str, uid: int, gid: int) -> int:
        return self._do(lambda: self._raw.chown(path, uid, gid))

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:  # noqa: ARG002
        return self._do(lambda: self._raw.truncate(path, length))

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        at = times[1] if times else UTIME_NOW
        return self._do(lambda: self._client.utime(path, time.time_ns() if at % 10**9 == UTIME_NOW % 10**9 else at))

    @staticmethod
    def _do(operation: Callable[[], object]) -> int:
        operation()
        return 0


for name in [name for name, value in vars(Export).items() if callable(value) and name[0] != "_" and name != "connect"]:
    setattr(Export, name, as_a_kernel_reports(getattr(Export, name)))

if __name__ == "__main__":
    export = Export(int(sys.argv[1]))
    options = {"use_ino": True, "attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0, "hard_remove": True}
    mfusepy.FUSE(
        export, sys.argv[2], foreground=True, nothreads=True, allow_other=True, default_permissions=True, **options
    )
