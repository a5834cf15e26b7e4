"""Ids that are made of a program's name and content: so the same program is the same submission, whoever starts again.

Spec: spool-layout.md, "What a client may rely on": the same file under the same name is the same submission. So nothing
has to be remembered of what was submitted. After ^C, a crash or a reboot the same programs are submitted again,
and nothing is run twice. An edited program has another id.

An id is for whoever is first, and two people may well have the same ``hello.py``. So a secret of the person's own goes
into it, which is made when it is needed first. On another machine, or for another account, ids are others.
"""

from __future__ import annotations

import contextlib
import os

from spoold.cli import record
from spoold.client import names
from spoold.model.errors import OperatorError

SIZE = 32  # bytes of the secret
DIGITS = 24  # hexadecimal ones of an id
MOST = 60  # characters of a name that an id has
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def secret() -> bytes:
    """Return the person's own secret; raises :class:`OperatorError` where it can be neither read nor made."""
    path = os.path.join(record.place(), "key")
    try:
        with contextlib.suppress(FileNotFoundError):
            return _read(path)
        os.makedirs(record.place(), mode=0o700, exist_ok=True)
        _make(path)
        return _read(path)
    except OSError as error:
        raise OperatorError(
            f"{path}: {error.strerror}: ids are made with it, so that what was submitted is found again; "
            "name a directory of yours in $XDG_STATE_HOME"
        ) from error


def _read(path: str) -> bytes:
    with os.fdopen(os.open(path, FLAGS), "rb") as file:
        found = file.read(SIZE + 1)
    if len(found) != SIZE:
        raise OperatorError(f"{path} is no key of ours: remove it, and a new one is made")
    return found


def _make(path: str) -> None:
    """Make it in one step, whole or not at all; another process may be quicker."""
    import secrets  # noqa: PLC0415 - it loads OpenSSL, and the key is there but for the first time

    private = f"{path}.{secrets.token_hex(4)}"
    descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SIZE))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(private, path)
    finally:
        os.unlink(private)


def id_of(name: str, data: bytes, key: bytes, attempt: int = 1) -> str:
    """Return the id of a program: of its name, its request, and the secret; of each further ``attempt`` another one."""
    import hashlib  # noqa: PLC0415 - it loads OpenSSL
    import hmac  # noqa: PLC0415 - as above

    words = name.encode(errors="surrogateescape")
    digest = hmac.new(key, b"%d\0%s%s" % (len(words), words, data), hashlib.sha256).hexdigest()[:DIGITS]
    stem = names.proper(name)[:MOST].rstrip("._-") or "program"
    if names.owner_of(stem) is not None:  # it may be another uid by which spoold knows us
        stem = stem.replace(".", "-", 1)
    return f"{stem}-{digest}" if attempt == 1 else f"{stem}-{digest}.{attempt}"
