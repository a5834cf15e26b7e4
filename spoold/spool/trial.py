"""Tries as several users whether an access control list does what it says: ``trial.py PATH LIST WRITER GROUP OWNER``.

This is a program of its own, which root runs without spoold's packages. It becomes several users, one after the other,
which a process with threads should not do. PATH is made in the working directory, so that no directory above it counts.
LIST, in hexadecimal, lets the uid OWNER read. The daemons are WRITER and others in GROUP, which is -1 where there are
no others. The program prints what is wrong, or nothing where all is well. It exits with ``UNABLE`` where it cannot
become other users.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

UNABLE = 3  # exit code
NAME = "system.posix_acl_access"


class _UnableError(Exception):
    """This process cannot be another user."""


def _as(uid: int, gid: int, act: Callable[[], object]) -> str:
    """Do something as a user with one group. Return "" or the error that kept the user from it."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        said = "?"
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            said = ""
            act()
        except OSError as error:
            said = said or str(error.strerror)
        finally:
            os.write(into, said.encode())
            os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(child, 0)
    if answer == "?":
        raise _UnableError
    return answer


def _write(path: str, access: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    os.write(descriptor, b"an answer\n")
    os.setxattr(descriptor, NAME, access)
    os.fsync(descriptor)


def _read(path: str) -> None:
    os.read(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), 1)


def _wrong(path: str, access: bytes, writer: int, group: int, owner: int) -> str:
    if why := _as(writer, max(group, 0) or writer, lambda: _write(path, access)):
        return f"no access control list can be set ({why})"
    if why := _as(owner, owner, lambda: _read(path)):
        return f"an owner cannot read a response that has an access control list ({why})"
    changes: dict[str, Callable[[], object]] = {
        "write to": lambda: os.open(path, os.O_WRONLY),
        "truncate": lambda: os.truncate(path, 0),
        "set the mode of": lambda: os.chmod(path, 0o644),
        "set the times of": lambda: os.utime(path, (1, 1)),
        "rename": lambda: os.rename(path, f"{path}.mine"),
        "remove": lambda: os.unlink(path),
    }
    for what, change in changes.items():
        if not _as(owner, owner, change):
            return f"an owner can {what} a response"
    if not _as(owner + 1, owner + 1, lambda: _read(path)):
        return "another user can read a response"
    if group >= 0 and (why := _as(owner + 2, group, lambda: _read(path))):
        return f"another daemon cannot read a response ({why})"
    return ""


def main(path: str, access: str, writer: str, group: str, owner: str) -> int:
    """Try the list, and print what is wrong. Return the exit code."""
    try:
        print(_wrong(path, bytes.fromhex(access), int(writer), int(group), int(owner)), end="")
    except _UnableError:
        return UNABLE
    finally:
        for name in (path, f"{path}.mine"):
            if os.path.lexists(name):
                os.unlink(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
