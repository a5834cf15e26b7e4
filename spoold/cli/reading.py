"""Reading answers, as a client of the spool does, and finding those to files whose name is no submission's.

An answer may be its owner's, who may have changed it, or hold a lease on it (fcntl(2), F_SETLEASE): so it is not waited
for, and what the daemons know of it counts (``spool/answers``). A client may not list ``done/``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from spoold.model import ids, misnamed
from spoold.model.errors import ClientError
from spoold.model.response import Response
from spoold.model.states import State
from spoold.spool import answers

LEASED = 2.0  # seconds in which whoever holds a lease on an answer may give it up: a file server does
PAUSE = 0.01  # seconds
LARGE = 1 << 26  # bytes of a file here that is not looked at, since hardly any spool takes it


def _bytes(path: str) -> bytes:
    """Return what an answer holds: of one that its owner made longer, a byte more than was published."""
    length = answers.length(path)
    with _opened(path) as file:
        return file.read(-1 if length is None else length + 1)


def _opened(path: str) -> BinaryIO:
    """Open an answer without waiting for long for whoever holds a lease on it (fcntl(2), F_SETLEASE)."""
    deadline = time.monotonic() + LEASED
    while True:
        try:
            return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(PAUSE)  # nothing tells when a lease ends


def read(path: str) -> Response | None:
    """Return an answer, None where there is none; raises :class:`ClientError` for one that is not for us to go by."""
    try:
        return _decoded(path)
    except PermissionError:
        raise ClientError(f"{path} is not yours to read") from None


def read_own(path: str) -> Response | None:
    """Return an answer, None where there is none or it is another user's."""
    with contextlib.suppress(PermissionError):
        return _decoded(path)
    return None


def _decoded(path: str) -> Response | None:
    try:
        data = _bytes(path)
        if (found := answers.doubt(path, data)) and found.changed:
            raise ClientError(f"{found.why}. `spoolctl requeue` runs it once more")
        return msgspec.json.decode(data, type=Response)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        raise ClientError(f"{path} cannot be read now: someone holds a lease on it") from None
    except msgspec.DecodeError as error:
        raise ClientError(f"{path} cannot be read; is it of another version of spoold? {error}") from error


def refused_name(spool: str, name: str) -> Response | None:
    """Return what a file was refused with whose name is no submission's, None where nothing is known of it.

    ``name`` is that of the file, with or without ``.json``, or what stands for it in ``done/``. The first one's answer
    goes by the name alone, all others' by their bytes as well. So these are looked for where a file of that name is
    here, or we may list ``done/``.
    """
    done = os.path.join(spool, State.DONE)
    found = (read_own(os.path.join(done, each)) for each in _refusals(done, name))
    return next((each for each in found if each), None)


def _refusals(done: str, name: str) -> Iterator[str]:
    """Yield names in ``done/`` that the answer may have."""
    asks, files = os.geteuid(), (name, f"{name}.json")
    for file in files:
        for digest in _digest_of_file_here(file):
            yield misnamed.refusal_names(file, asks, digest)[-1]
    stems = dict.fromkeys(map(misnamed.stem, files), "")
    stems[name.removesuffix(".refused.json")] = ""  # what a refusal says of itself, and what it is called
    yield from (each for each in (f"{stem}.refused.json" for stem in stems) if ids.is_refusal(each))
    with contextlib.suppress(OSError):
        others = [each for each in os.listdir(done) if each.partition("@")[0] in stems and ids.is_refusal(each)]
        yield from sorted(others, key=lambda each: ids.kept_for(each) != asks)


def _digest_of_file_here(name: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        if "/" not in name and os.path.isfile(name) and os.path.getsize(name) <= LARGE:
            with open(name, "rb") as file:
                yield hashlib.file_digest(file, "sha256").hexdigest()


def why_refusal_is_hidden(spool: str, name: str) -> str:
    """Say how to find what a file was refused with where another user's of that name was refused; "" where none was."""
    called, done = misnamed.stem(name), os.path.join(spool, State.DONE)
    if not os.path.lexists(os.path.join(done, f"{called}.refused.json")):
        return ""
    digits = misnamed.digits_in(called)
    return (
        "another user's file of that name was refused. To see what came of yours, ask in the directory where it lies, "
        f"under the name that it has there. Its answer is {done}/{called}@<uid>-<the first {digits} digits of its "
        "SHA-256>.refused.json"
    )


def doubt(spool: str, id_: str) -> str:
    """Say why a response may not be what was published, "" where nothing speaks against it."""
    path = os.path.join(spool, State.DONE, ids.response_name(id_))
    with contextlib.suppress(OSError):
        found = answers.doubt(path, _bytes(path))
        return found.why if found else ""
    return ""
