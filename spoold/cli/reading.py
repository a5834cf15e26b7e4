"""How commands read answers for people: by id, or by a file name that is no submission's name.

The client library reads what a client may rely on. This module adds two things for people at a terminal. It finds the
answer to a misnamed file. For the operator it checks whether an owner has changed an answer that was given to them
(``spool/answers``).
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

import msgspec

from spoold.client import directory, names
from spoold.client.errors import AnswerError
from spoold.client.transport import Transport
from spoold.model.errors import ClientError
from spoold.model.response import Response

if TYPE_CHECKING:
    from spoold.spool.answers import Doubt


def decoded(data: bytes, what: str) -> Response:
    """Return a response from its bytes. Raises :class:`ClientError`, whose text begins with ``what``."""
    try:
        return msgspec.json.decode(data, type=Response)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ClientError(
            f"{what} cannot be read: {error}. If a newer version of spoold wrote it, upgrade this one"
        ) from error


def look(transport: Transport, id_: str) -> Response | None:
    """Return the response, or the response so far; None where nothing is known of that id.

    ``id_`` may also be the name of a file that was refused for its name. The result is then the refusal.
    """
    transport.require()
    spool = root(transport)
    if spool and not names.is_id(id_):
        return _refused_name(spool, id_)
    if spool and (found := read(os.path.join(spool, "done", names.response_name(id_)))):
        return found
    data, is_known = transport.look(id_) if names.is_id(id_) else (None, False)
    if data is not None:
        return decoded(data, id_)
    return None if is_known or not spool else _refused_name(spool, id_)


def _refused_name(spool: str, name: str) -> Response | None:
    from spoold.cli import misnaming  # noqa: PLC0415 - few names are wrong

    return misnaming.refused_name(spool, name)


def root(transport: Transport) -> str:
    """Return the directory of a spool that is on this host; "" for a spool elsewhere."""
    return transport.root if isinstance(transport, directory.Directory) else ""


def read(path: str) -> Response | None:
    """Return an answer; None where there is none. Raises :class:`ClientError` for an answer that must not be used."""
    try:
        return _checked(path)
    except PermissionError:
        raise ClientError(f"{path} belongs to another user") from None


def read_own(path: str) -> Response | None:
    """Return an answer; None where there is none, or where it is another user's."""
    with contextlib.suppress(PermissionError):
        return _checked(path)
    return None


def _checked(path: str) -> Response | None:
    try:
        data = _bytes(path)
    except FileNotFoundError:
        return None
    except AnswerError as error:
        raise ClientError(str(error)) from None
    if (found := _doubt(path, data)) and found.changed:
        raise ClientError(f"{found.why}. `spoolctl requeue` runs it once more")
    return decoded(data, path)


def _bytes(path: str) -> bytes:
    """Return the content of an answer.

    Where its owner may have made it longer, read one byte more than was published.
    """
    if not _may_be_changed(path):
        return directory.read(path)
    from spoold.spool import answers  # noqa: PLC0415 - few answers are given away, and it loads slowly

    length = answers.length(path)
    return directory.read(path, None if length is None else length + 1)


def _doubt(path: str, data: bytes) -> Doubt | None:
    if not _may_be_changed(path):
        return None
    from spoold.spool import answers  # noqa: PLC0415 - as above

    return answers.doubt(path, data)


def _may_be_changed(path: str) -> bool:
    """Tell whether someone besides us and the daemons may have changed an answer, going by its owner and group."""
    about, beside = os.stat(path), os.stat(os.path.dirname(path))
    shared = beside.st_mode & stat.S_ISGID
    ours = about.st_gid == beside.st_gid if shared else about.st_uid in (os.geteuid(), beside.st_uid)
    return not ours or os.path.lexists(path.removesuffix(".json") + ".sha256")


def doubt(spool: str, id_: str) -> str:
    """Return why a response may differ from the published one; "" where there is no reason to doubt it."""
    path = os.path.join(spool, "done", names.response_name(id_))
    with contextlib.suppress(OSError, AnswerError):
        found = _doubt(path, _bytes(path))
        return found.why if found else ""
    return ""


def why_not_taken(path: str) -> str:
    """Return why a file is still in the drop box."""
    return (
        f"{path} was not taken in yet: it is still arriving, intake does not run, the spool's disk is full, or its "
        "owner has used up their share of it. Intake takes it in as soon as that is over"
    )


def idle_cancel(spool: str, id_: str) -> str:
    """Return why a file that should cancel a submission has no effect; "" where there is no such file."""
    path = os.path.join(spool, "incoming", f"{id_}.cancel")
    with contextlib.suppress(OSError):
        if os.lstat(path).st_size == 0:
            return f"{path} is empty, so it cancels nothing: write the id into it, or use `spoolctl cancel {id_}`"
    return ""
