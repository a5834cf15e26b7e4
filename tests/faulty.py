"""Mount a directory on a disk that fails on demand: ``python -m tests.faulty DIRECTORY AT SWITCHES``.

AT shows the files of DIRECTORY. While the file SWITCHES/<first part of a path> names an operation, all operations of
that kind below that first part do nothing and fail with EIO. So one mount serves as many disks as there are tests. With
``quota-UID`` in the file, the disk quota of that user is full: they can be given no file. The process that started this
one never sees an error, because it is the client and not one of the daemons. The kernel caches nothing of this mount,
so each look is an operation. fsync does nothing real here, because no test cuts the power.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import mfusepy

UTIME_NOW = (1 << 30) - 1  # in place of ns: what utimensat(2) says for "now"
STAT = ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size")
STATFS = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail", "f_namemax")
# By the word of the switch. Looking at directories always works, because without it no path would reach their files.
OPERATIONS = {
    "stat": ("getattr",),
    "list": ("readdir",),
    "read": ("read",),
    "create": ("create", "mkdir"),
    "write": ("write", "setxattr"),
    "sync": ("fsync", "fsyncdir"),
    "touch": ("utimens",),
    "rename": ("rename",),
    "link": ("link", "symlink"),
    "readlink": ("readlink",),
    "unlink": ("unlink",),
    "statfs": ("statfs",),
}


class Mirror(mfusepy.Operations):  # type: ignore[misc]
    """Each operation does the same in the directory. Open files are descriptors."""

    use_ns = True

    def __init__(self, directory: str, switches: str) -> None:
        self._directory = directory
        self._switches = switches
        self._client = os.getppid()

    def at(self, path: str) -> str:
        """Return the path in the directory that ``path`` of the mount stands for."""
        return self._directory + path

    def switched(self, path: str) -> list[str]:
        """Return the words that are switched on for the disk of ``path``."""
        try:
            return Path(self._switches, path.split("/")[1]).read_text().split()
        except (FileNotFoundError, IsADirectoryError):
            return []

    def require_health(self, word: str, path: str) -> None:
        """Raise EIO where the switch is on."""
        if word == "stat" and os.path.isdir(self.at(path)):
            return
        if word in self.switched(path) and mfusepy.fuse_get_context()[2] != self._client:
            raise mfusepy.FuseOSError(errno.EIO)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        found = os.lstat(self.at(path)) if fh is None else os.fstat(fh)
        times = {"st_atime": found.st_atime_ns, "st_mtime": found.st_mtime_ns, "st_ctime": found.st_ctime_ns}
        return {name: getattr(found, name) for name in STAT} | times

    def readdir(self, path: str, fh: int) -> Iterable[tuple[str, dict[str, int], int]]:  # noqa: ARG002
        # readdir would skip an entry with inode number 0
        found = [(name, {"st_mode": 0o040000, "st_ino": 1}, 0) for name in (".", "..")]
        with os.scandir(self.at(path)) as entries:
            for entry in entries:
                kind = 0o040000 if entry.is_dir(follow_symlinks=False) else 0o100000
                kind = 0o120000 if entry.is_symlink() else kind
                found.append((entry.name, {"st_mode": kind, "st_ino": entry.inode()}, 0))
        return found

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self.at(path))
        return {name: getattr(found, name) for name in STATFS}

    # -- open files

    def open(self, path: str, flags: int) -> int:
        return os.open(self.at(path), flags & (os.O_ACCMODE | os.O_TRUNC))

    def create(self, path: str, mode: int, flags: int = 0) -> int:
        descriptor = os.open(self.at(path), flags & (os.O_ACCMODE | os.O_EXCL) | os.O_CREAT, mode)
        os.fchown(descriptor, mfusepy.fuse_get_context()[0], -1)
        return descriptor

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:  # noqa: ARG002
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:  # noqa: ARG002
        return os.pwrite(fh, data, offset)

    def flush(self, path: str, fh: int) -> int:  # noqa: ARG002
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:  # noqa: ARG002
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:  # noqa: ARG002
        return 0

    def release(self, path: str, fh: int) -> int:  # noqa: ARG002
        os.close(fh)
        return 0

    # -- names

    def unlink(self, path: str) -> int:
        os.unlink(self.at(path))
        return 0

    def rename(self, old: str, new: str) -> int:
        os.rename(self.at(old), self.at(new))
        return 0

    def link(self, target: str, source: str) -> int:
        os.link(self.at(source), self.at(target), follow_symlinks=False)
        return 0

    def symlink(self, target: str, source: str) -> int:
        os.symlink(source, self.at(target))
        return 0

    def readlink(self, path: str) -> str:
        return os.readlink(self.at(path))

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self.at(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self.at(path))
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self.at(path), mode & 0o7777)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        if f"quota-{uid}" in self.switched(path) and mfusepy.fuse_get_context()[2] != self._client:
            raise mfusepy.FuseOSError(errno.EDQUOT)
        os.chown(self.at(path), uid, gid, follow_symlinks=False)
        return 0

    def setxattr(self, path: str, name: str, value: bytes, options: int, position: int = 0) -> int:  # noqa: ARG002
        os.setxattr(self.at(path), name, value, options, follow_symlinks=False)
        return 0

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:  # noqa: ARG002
        try:
            return os.getxattr(self.at(path), name, follow_symlinks=False)
        except OSError as error:
            raise mfusepy.FuseOSError(error.errno) from error

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self.at(path) if fh is None else fh, length)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        at = times[1] if times else UTIME_NOW
        if at % 10**9 == UTIME_NOW % 10**9:
            os.utime(self.at(path))
        else:
            os.utime(self.at(path), ns=(at, at))
        return 0


def may_fail(word: str, operation: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an operation so that it fails when its switch is on."""

    def call(mirror: Mirror, path: str, *arguments: Any, **options: Any) -> Any:
        mirror.require_health(word, path)
        return operation(mirror, path, *arguments, **options)

    return call


for word, names in OPERATIONS.items():
    for name in names:
        setattr(Mirror, name, may_fail(word, getattr(Mirror, name)))

if __name__ == "__main__":
    mirror = Mirror(os.path.abspath(sys.argv[1]), sys.argv[3])
    options = {"use_ino": True, "attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0, "hard_remove": True}
    mfusepy.FUSE(
        mirror, sys.argv[2], foreground=True, nothreads=True, default_permissions=True, allow_other=True, **options
    )
