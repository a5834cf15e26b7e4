"""Files that came back, from the response or from the tar beside it, and how they are written here.

These files come from a stranger's program. So a name that leads out of the directory is refused. Nothing is read beyond
the sizes that the response states, and each file must have the digest that the response states.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Mapping

from spoold.client.errors import AnswerError, RequestError
from spoold.client.response import REJECTED, Response, ReturnedFile, decoded
from spoold.client.transport import MOST, Transport, digest

FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def of_response(response: Response, case: str | None) -> list[ReturnedFile]:
    """Return the files of the run, or of a case.

    Raises :class:`RequestError` where there is no such case, or where the request was refused.
    """
    if response.status == REJECTED:
        raise RequestError(f"{response.id}: no files came back, because it was refused: {response.reason}")
    if case is None:
        return response.outputs or []
    for each in response.cases or []:
        if each.name == case:
            return each.outputs or []
    raise RequestError(f"{response.id}: there is no case called {case!a}")


def contents(transport: Transport, response: Response, id_: str, files: Iterable[ReturnedFile]) -> dict[str, bytes]:
    """Return the contents of returned files.

    Raises :class:`AnswerError` where they are gone or differ from the response.
    """
    found: dict[str, bytes] = {}
    tar: dict[str, bytes] | None = None
    for file in files:
        if file.content is not None:
            data = decoded(file.content, file.encoding)
        else:
            tar = _tar(transport, response, id_) if tar is None else tar
            data = tar.get(file.sha256, b"")
        if len(data) != file.size or digest(data) != file.sha256:
            raise AnswerError(f"{id_}: the file {file.name!a} differs from what the response says of it")
        found[checked_name(file.name)] = data
    return found


def _tar(transport: Transport, response: Response, id_: str) -> dict[str, bytes]:
    """Return the contents of the files in the tar, by digest. Their names there also contain the name of the case."""
    about = response.outputs_tar
    if about is None or not 0 <= about.size <= MOST:
        raise AnswerError(f"{id_}: the response does not say where the files are")
    data = transport.tar(id_, about.size)
    if data is None:
        raise AnswerError(f"{id_}: its files were deleted: they are kept as long as the response")
    if len(data) != about.size or digest(data) != about.sha256:
        raise AnswerError(f"{id_}: its files are not the ones that the response names")
    import tarfile  # noqa: PLC0415 - it loads slowly, and few responses have a tar

    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isreg() and member.size <= about.size else None
                if file is not None:
                    content = file.read(member.size)
                    found[digest(content)] = content
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise AnswerError(f"{id_}: its files cannot be read: {error}") from error
    return found


def checked_name(name: str) -> str:
    """Return ``name`` if it stays below the directory that it is written to. Raises :class:`AnswerError` otherwise."""
    if any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name or "\0" in name:
        raise AnswerError(f"{name!a} is not a name that a returned file can have")
    return name


def save(
    contents: Mapping[str, bytes], files: Iterable[ReturnedFile], directory: str | os.PathLike[str], *, over: bool
) -> list[str]:
    """Write files below a directory, following no link in it.

    Raises :class:`RequestError` where one cannot be written.
    """
    modes = {file.name: file.mode for file in files}
    os.makedirs(directory, exist_ok=True)
    root = os.open(directory, FLAGS & ~os.O_NOFOLLOW)
    try:
        for name, data in contents.items():
            try:
                _write(root, checked_name(name), data, _mode(modes.get(name, "")), over=over)
            except FileExistsError:
                why = f"{name} is already in {os.fspath(directory)} and was kept: choose another directory"
                raise RequestError(why) from None
            except OSError as error:
                raise RequestError(f"{name} cannot be written into {os.fspath(directory)}: {error.strerror}") from error
    finally:
        os.close(root)
    return list(contents)


def _write(root: int, name: str, data: bytes, mode: int, *, over: bool) -> None:
    *directories, last = name.split("/")
    held = os.dup(root)
    try:
        for each in directories:
            with contextlib.suppress(FileExistsError):
                os.mkdir(each, dir_fd=held)
            inner = os.open(each, FLAGS, dir_fd=held)
            os.close(held)
            held = inner
        if over:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(last, dir_fd=held)
        with os.fdopen(os.open(last, NEW, mode, dir_fd=held), "wb") as file:
            file.write(data)
    finally:
        os.close(held)


def _mode(text: str) -> int:
    """Return the mode to create a file with. Only the right to execute is taken over."""
    try:
        return 0o777 if int(text, 8) & 0o100 else 0o666
    except ValueError:
        return 0o666
