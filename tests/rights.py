"""Rights to an answer: those that the file records, and those that users find by trying."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spoold.host import acl, attributes


def run_as(uid: int, script: str, gid: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a shell script as a user who is in no other group."""
    command = ["sh", "-c", script]
    group = uid if gid is None else gid
    return subprocess.run(
        command, user=uid, group=group, extra_groups=[], cwd="/", capture_output=True, text=True, check=False
    )


def assert_answer(path: Path, uid: int, *, shared: bool = False) -> None:
    """Assert that an answer belongs to the daemons and only ``uid`` can read it.

    In a shared spool the daemons can too.
    """
    found = attributes.rights(str(path))
    assert found is not None
    assert found.uid != uid, "the daemon owns it"
    assert (found.mode, found.access) == (acl.MODE, acl.readers({uid}, own_group=shared))


def in_child(act: Callable[[], Any], uid: int | None = None, gid: int | None = None) -> Any:
    """Run a function in a process of its own, and return its result. With a uid it runs as a user in no other group.

    The result must be a JSON value. It is None where the process ended itself.
    """
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(out)
            if uid is not None:
                drop_rights(uid, gid)
            os.write(into, json.dumps(act()).encode())
            code = 0
        except BaseException:  # noqa: BLE001 - pytest must not go on in the child
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(into)
    with os.fdopen(out, "rb") as said:
        answer = said.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(answer) if answer else None


def drop_rights(uid: int, gid: int | None = None) -> None:
    """Become a user who is in no other group."""
    group = uid if gid is None else gid
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(uid, uid, uid)


def can_do(path: Path, uid: int, own: Path, *, gid: int | None = None) -> set[str]:
    """Return what a user in no other group can do to an answer. ``own`` is a directory of theirs on its file system."""
    return set(in_child(lambda: _tried(str(path), own), uid, gid))


def _tried(path: str, own: Path) -> list[str]:
    mine = own / f"mine-{os.getpid()}"
    mine.write_bytes(b"forged")
    elsewhere = f"{mine}-elsewhere"
    mode = os.stat(path).st_mode & 0o777
    listed = acl.readers({os.getuid()}, own_group=True)
    attempts: dict[str, Callable[[], object]] = {
        "read": lambda: os.open(path, os.O_RDONLY),
        "write": lambda: os.open(path, os.O_WRONLY),
        "append": lambda: os.open(path, os.O_WRONLY | os.O_APPEND),
        "create": lambda: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        "truncate": lambda: os.truncate(path, 17 << 30),
        "chmod": lambda: os.chmod(path, 0o644),
        "same mode": lambda: os.chmod(path, mode),
        "chown": lambda: os.chown(path, os.getuid(), -1),
        "chgrp": lambda: os.chown(path, -1, os.getgid()),
        "touch": lambda: os.utime(path),
        "utime": lambda: os.utime(path, (1, 1)),
        "list": lambda: os.setxattr(path, acl.NAME, listed),
        "no list": lambda: os.removexattr(path, acl.NAME),
        "attribute": lambda: os.setxattr(path, "user.mine", b"x"),
        "lease": lambda: fcntl.fcntl(os.open(path, os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK),
        "link": lambda: os.link(path, elsewhere),
        "move": lambda: os.rename(path, elsewhere),
        "rename": lambda: os.rename(path, f"{path}.mine"),
        "replace": lambda: os.replace(mine, path),
        "unlink": lambda: os.unlink(path),
    }
    done = []
    for what, attempt in attempts.items():
        try:
            attempt()
        except OSError:
            continue
        done.append(what)
    return done
