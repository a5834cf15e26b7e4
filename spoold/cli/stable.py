"""Ids made from a program's name and content, so that the same program is the same submission in each run.

Spec: spool-layout.md, "What a client may rely on". The same file under the same name is the same submission. So a sweep
does not have to remember its submissions. After ^C, a crash or a reboot the same programs are submitted again, and
nothing is run twice. An edited program has another id.

An id belongs to the first user who submits it, and two people may well have the same ``hello.py``. So each id also
depends on a secret of the person, which is made on first use. On another machine, or for another account, the ids
differ.
"""

from __future__ import annotations

import contextlib
import os

from spoold.cli import record
from spoold.client import names
from spoold.model.errors import OperatorError

SIZE = 32  # bytes of the secret
DIGITS = 24  # hexadecimal digits in an id
MOST = 60  # characters of the name in an id
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def secret() -> bytes:
    """Return the person's own secret. Raises :class:`OperatorError` where it can be neither read nor made."""
    path = os.path.join(record.place(), "key")
    try:
        with contextlib.suppress(FileNotFoundError):
            return _read(path)
        os.makedirs(record.place(), mode=0o700, exist_ok=True)
        _make(path)
        return _read(path)
    except OSError as error:
        raise OperatorError(
            f"{path}: {error.strerror}: its key is needed to find earlier submissions again. "
            "Set $XDG_STATE_HOME to a directory of yours"
        ) from error


def _read(path: str) -> bytes:
    with os.fdopen(os.open(path, FLAGS), "rb") as file:
        found = file.read(SIZE + 1)
    if len(found) != SIZE:
        raise OperatorError(f"{path} has no key of spoolctl: remove the file, and a new key is made")
    return found


def _make(path: str) -> None:
    """Make the key in one step, whole or not at all. Keep the key of another process that was quicker."""
    import secrets  # noqa: PLC0415 - it loads OpenSSL, and only the first run makes a key

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
    """Return a program's id, from its name, its request and the secret.

    Each further ``attempt`` has an id of its own.
    """
    import hashlib  # noqa: PLC0415 - it loads OpenSSL
    import hmac  # noqa: PLC0415 - as above

    words = name.encode(errors="surrogateescape")
    digest = hmac.new(key, b"%d\0%s%s" % (len(words), words, data), hashlib.sha256).hexdigest()[:DIGITS]
    stem = names.proper(name)[:MOST].rstrip("._-") or "program"
    if names.owner_of(stem) is not None:  # spoold may know us by another uid than the prefix says
        stem = stem.replace(".", "-", 1)
    return f"{stem}-{digest}" if attempt == 1 else f"{stem}-{digest}.{attempt}"
