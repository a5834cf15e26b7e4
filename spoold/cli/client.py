"""What a client does: make a request, drop it, wait for the response.

It uses what the spec promises to clients and nothing else: names in ``incoming/``, ``done/`` and ``progress/``.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import UNSET

from spoold.cli.reading import read, read_own, refused_name, why_refusal_is_hidden
from spoold.model import ids, misnamed
from spoold.model.encodings import Encoding
from spoold.model.errors import ClientError
from spoold.model.response import FINAL, Response
from spoold.model.states import State
from spoold.model.submission import File, Request
from spoold.model.words import shown

T = TypeVar("T")
ENCODER = msgspec.json.Encoder()
POLL_FIRST, POLL_MOST = 0.01, 0.5  # seconds between two looks at done/
SOON = 2.0  # seconds in which a file that is whole is taken in, where nothing is in the way


def request_from_directory(directory: Path) -> Request:
    """Return a request with every file and empty directory below ``directory``.

    Hidden names are left out, and so is what is neither, as a link.
    """
    files = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink() or any(part.startswith(".") for part in name.split("/")):
            continue
        if path.is_dir() and not any(path.iterdir()):
            files.append(File(name=f"{name}/"))
        elif path.is_file():
            content, encoding = encoded(path.read_bytes())
            executable = bool(path.stat().st_mode & stat.S_IXUSR)
            files.append(File(name=name, content=content, encoding=encoding, executable=executable))
    if not any(file.name == "run.sh" for file in files):
        raise ClientError(f"{directory}: there is no run.sh in it, which is what is run")
    return Request(files=files)


def as_bytes(request: Request) -> bytes:
    """Return a request as it is dropped; raises :class:`ClientError` where something in it is no text."""
    try:
        return ENCODER.encode(request)
    except UnicodeEncodeError as error:
        raise ClientError(f"{shown(error.object)}: names of files, arguments and variables have to be UTF-8") from error


def encoded(data: bytes) -> tuple[str, Encoding]:
    """Return ``data`` as a request says it: as text where it is UTF-8, else in base64."""
    try:
        return data.decode(), "utf8"
    except UnicodeDecodeError:
        return base64.b64encode(data).decode(), "base64"


def new_id(stem: str) -> str:
    """Return an id that nobody can guess: ``stem`` with what ids may not have taken out, and a random part."""
    cleaned = misnamed.proper(stem)[:80]
    if ids.owner_of(cleaned) is not None:  # it may be another uid by which spoold knows us
        cleaned = cleaned.replace(".", "-", 1)
    return f"{cleaned}-{secrets.token_hex(6)}"


class Dropped(NamedTuple):
    """A request in the drop box: its id, its path, whose it is there, and the SHA-256 of its bytes in hexadecimal.

    The file system says whose it is: over NFS and through ssh that is not the user who asks. Where the name of the file
    is no submission's, it has no id, and all that comes is a refusal.
    """

    id: str
    path: str
    uid: int
    sha256: str

    @property
    def has_id(self) -> bool:
        """Tell whether the name of the file is a submission's."""
        return ids.submission_id(os.path.basename(self.path)) is not None

    @property
    def refusals(self) -> list[str]:
        """Return the names in ``done/`` that the answer may have where the id, or the name, is not to be had."""
        if self.has_id:
            return [ids.refusal_name(self.id, self.uid, self.sha256)]
        return misnamed.refusal_names(os.path.basename(self.path), self.uid, self.sha256)


def drop(spool: str, id_: str, data: bytes) -> Dropped:
    """Put a request into the drop box under its final name in one step, so that nobody sees half of it.

    Where another user has that name, it is one that nobody can guess: so nobody can keep us from it.
    """
    _require_id(id_)
    incoming = _incoming(spool)
    private = os.path.join(incoming, f".{id_}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            uid = os.fstat(file.fileno()).st_uid
        path = os.path.join(incoming, f"{id_}.json")
        try:
            os.link(private, path)
        except FileExistsError:
            if _is_ours(path):
                raise ClientError(f"{id_}.json lies in {incoming} already: choose another --id") from None
            path = os.path.join(incoming, f"{ids.unguessable(id_)}.json")
            os.link(private, path)
    finally:
        os.unlink(private)
    return Dropped(id_, path, uid, hashlib.sha256(data).hexdigest())


def _is_ours(path: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.lstat(path).st_uid == os.geteuid()
    return False


def cancel(spool: str, id_: str) -> None:
    """Ask for the end of a submission. Whether there is one is not said: only its response will tell."""
    _require_id(id_)
    path = os.path.join(_incoming(spool), f"{ids.unguessable(id_)}.cancel")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{id_}\n")


def idle_cancel(spool: str, id_: str) -> str:
    """Say why a file that lies there to cancel a submission does nothing; "" where there is none, or it does."""
    path = os.path.join(_incoming(spool), f"{id_}.cancel")
    with contextlib.suppress(OSError):
        if os.lstat(path).st_size == 0:
            return f"{path} is empty, and does nothing: write the id into it, or use `spoolctl cancel {id_}`"
    return ""


def _require_id(id_: str) -> None:
    if not ids.is_id(id_):
        raise ClientError(
            f"{id_!a} cannot be an id: letters, digits, '.', '_' and '-', at most 128, the first a letter or digit, "
            f"and not ending in {', '.join(ids.RESERVED_ENDINGS)}: for example {misnamed.proper(id_)}"
        )


def _incoming(spool: str) -> str:
    require_spool(spool)
    return os.path.join(spool, "incoming")


def require_spool(spool: str) -> None:
    """Raise :class:`ClientError` where there is no spool."""
    if not os.path.isdir(os.path.join(spool, "incoming")):
        raise ClientError(f"{spool} holds no spool: name one with --spool or $SPOOLD_SPOOL")


def look(spool: str, id_: str) -> Response | None:
    """Return the response, or the response so far; None where nothing is known of that id.

    ``id_`` may also be what somebody called a file whose name is no submission's: then it is the refusal.
    """
    if not ids.is_id(id_):
        return refused_name(spool, id_)
    for directory, name in ((State.DONE, ids.response_name(id_)), ("progress", ids.done_name(id_))):
        found = read(os.path.join(spool, directory, name))
        if found is not None:
            return found
    # It may have been finished between the two looks.
    found = read(os.path.join(spool, State.DONE, ids.response_name(id_)))
    if found is not None or os.path.lexists(os.path.join(_incoming(spool), f"{id_}.json")):
        return found
    return refused_name(spool, id_)


def why_unknown(spool: str, id_: str) -> str:
    """Say why there is nothing to see of an id, or of a file whose name is no submission's."""
    for name in (f"{id_}.json", id_):
        path = os.path.join(_incoming(spool), name)
        if "/" in name or not name.strip(".") or not os.path.lexists(path):
            continue
        if ids.is_upload_in_progress(name):
            return f"{path} is an upload in progress by its name, which is not looked at: rename it when it is whole"
        if ids.submission_id(name):
            return why_not_taken(path)
        return f"{path} is refused when it does not change any more, since its name is no submission's"
    if hidden := why_refusal_is_hidden(spool, id_):
        return hidden
    return "nothing is known of it (yet): no submission of that id, or it still arrives"


def why_not_taken(path: str) -> str:
    """Say why a file lies in the drop box still."""
    return (
        f"{path} was not taken in yet: it still arrives, intake does not run, the spool's disk is full, or its "
        "owner has used up a share of it. It is taken in as soon as that is over"
    )


def wait(spool: str, id_: str, timeout: float) -> Response | None:
    """Return the final response; None where ``timeout`` seconds were not enough."""
    return _poll(lambda: _final(spool, id_), timeout)


def is_taken(dropped: Dropped, timeout: float | None = None) -> bool:
    """Wait until intake has taken a file; False where ``timeout`` seconds, or ``SOON``, were not enough."""
    return _poll(lambda: not os.path.lexists(dropped.path) or None, SOON if timeout is None else timeout) is not None


def refusal(spool: str, dropped: Dropped) -> Response | None:
    """Return what a file was refused with since its id, or its name, is not to be had; None where it was taken in.

    Under the first name there may be the refusal of somebody else's file of the same name.
    """
    for name in dropped.refusals:
        found = read_own(os.path.join(spool, State.DONE, name))
        if found and found.request_sha256 in (dropped.sha256, UNSET) and found.uid in (dropped.uid, UNSET):
            return found
    return None


def answer(
    spool: str, dropped: Dropped, timeout: float, meanwhile: Callable[[], object] = lambda: None
) -> Response | None:
    """Return the answer to what was dropped, never that to something else; None where ``timeout`` was not enough.

    ``meanwhile`` is called now and then from when the file was taken until the answer is there.
    """

    def look() -> Response | None:
        found = answer_so_far(spool, dropped)
        if found is None and not os.path.lexists(dropped.path):
            meanwhile()
        return found

    return _poll(look, timeout)


def answer_so_far(spool: str, dropped: Dropped) -> Response | None:
    """Return the answer to what was dropped, never that to something else; None before it is there.

    A file goes after its refusal came. So once it has gone it is refused, or what has the id is this.
    """
    if os.path.lexists(dropped.path):
        return None
    found = refusal(spool, dropped)  # over NFS a new name may be seen late
    if found or not dropped.has_id:
        return found
    response = _final(spool, dropped.id)
    if response is not None and response.request_sha256 not in (dropped.sha256, UNSET):
        raise ClientError(f"{dropped.id!a}: the response of that id answers another request, and ours has no answer")
    return response


def _final(spool: str, id_: str) -> Response | None:
    if not ids.is_id(id_):
        return refused_name(spool, id_)
    response = read(os.path.join(spool, State.DONE, ids.response_name(id_)))
    return response if response is not None and response.status in FINAL else None


def _poll(look: Callable[[], T | None], timeout: float) -> T | None:
    """Return what a look finds, in time: a client may not list ``done/``, and so cannot watch it."""
    deadline = time.monotonic() + timeout
    pause = POLL_FIRST
    while (found := look()) is None and time.monotonic() < deadline:
        time.sleep(pause)  # there is nothing that would wake us, see above
        pause = min(pause * 1.3, POLL_MOST)
    return found
