"""A directory as the files of a request.

Hidden files, empty directories and the right to execute are included. A symbolic link is followed if it leads to
something in the directory. The directory may be somebody else's work, so no link out of it is followed, even if someone
changes it meanwhile: a file is opened first, and then the kernel tells where it lies. A file that cannot be submitted
is a **problem**, which is reported by name. Names that no program needs, such as ``.git``, are left out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple, Unpack

from spoold.client.errors import RequestError
from spoold.client.request import File, Request, _Options, encoded, file

NOT_NEEDED = frozenset(
    {
        *(".git", ".hg", ".svn", ".bzr", ".jj", "CVS", "_darcs"),
        *(".DS_Store", "__MACOSX", "Thumbs.db", "desktop.ini"),
        *("__pycache__", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".ruff_cache"),
    }
)
RUN_FILE = "run.sh"
MOST_FILES = 20_000  # with directories; links in a directory can turn a few files into many
MOST_BYTES = 1 << 28


class Problem(NamedTuple):
    """A name that cannot be submitted, and why."""

    name: str
    why: str


class Found(NamedTuple):
    """The files of a directory, its problems, and the names that are left out since no program needs them."""

    files: list[File]
    problems: list[Problem]
    left_out: list[str]


def from_directory(
    directory: str | os.PathLike[str], stdin: str | bytes = b"", *, leave_out: bool = False, **options: Unpack[_Options]
) -> Request:
    """Return a request for a directory that has ``run.sh``. ``options`` are keys of the request.

    Raises :class:`RequestError` where something in the directory cannot be submitted. With ``leave_out``, it is left
    out instead.
    """
    found = read(directory)
    if found.problems and not leave_out:
        raise RequestError("; ".join(f"{problem.name}: {problem.why}" for problem in found.problems))
    require_program(directory, found)
    request = Request(files=found.files)
    if stdin:
        request["inputs"], request["inputs_encoding"] = encoded(stdin)
    request.update(options)  # type: ignore[typeddict-item]  # they are keys of a request
    return request


def read(directory: str | os.PathLike[str]) -> Found:
    """Return the content of a directory, sorted by name. Raises :class:`RequestError` where it is too large."""
    root = os.path.realpath(directory)
    found = Found([], [], [])
    room = MOST_BYTES
    for name, path in _walk(root, "", (root,), found):
        try:
            made, size = _file(root, name, path)
        except _ProblemError as error:
            found.problems.append(Problem(shown(name), str(error)))
            continue
        except OSError as error:
            found.problems.append(Problem(shown(name), _said(error)))
            continue
        room -= size
        if room < 0 or len(found.files) >= MOST_FILES:
            raise RequestError(f"{directory} has more than {MOST_FILES} files or {MOST_BYTES >> 20} MiB: remove some")
        found.files.append(made)
    return found


def require_program(directory: str | os.PathLike[str], found: Found) -> None:
    """Raise :class:`RequestError` where there is no ``run.sh``. The text says if a subdirectory has one."""
    names = [each["name"] for each in found.files]
    if RUN_FILE in names:
        return
    tops = {name.partition("/")[0] for name in names}
    hint = "Write one that starts the program. `spoolctl run FILE` and `spoolctl grade` need none"
    if len(tops) == 1 and f"{(top := tops.pop())}/{RUN_FILE}" in names:
        hint = f"The folder {top} in it has one: submit {os.path.join(directory, top)}"
    raise RequestError(f"{directory}: there is no {RUN_FILE} in it, which is what is run. {hint}")


class _ProblemError(Exception):
    pass


def _walk(path: str, above: str, ancestors: tuple[str, ...], found: Found) -> Iterator[tuple[str, str]]:
    """Yield name and path of each file and each empty directory (its name ends in ``/``).

    Record the rest in ``found``.
    """
    for entry in sorted(os.scandir(path), key=lambda each: each.name):
        name = above + entry.name
        if entry.name in NOT_NEEDED:
            found.left_out.append(shown(name))
        elif not os.path.isdir(entry.path):  # is_dir() of the entry raises an error for a link that leads to itself
            yield name, entry.path
        else:
            yield from _directory(name, entry.path, ancestors, found)


def _directory(name: str, path: str, ancestors: tuple[str, ...], found: Found) -> Iterator[tuple[str, str]]:
    real = os.path.realpath(path)
    try:
        if real in ancestors:
            raise _ProblemError("is a link to a directory that contains it")
        if not _is_below(real, ancestors[0]):
            raise _ProblemError(_out(path))
        empty = not os.listdir(path)
    except (_ProblemError, OSError) as error:
        found.problems.append(Problem(shown(name), _said(error) if isinstance(error, OSError) else str(error)))
        return
    if empty:
        yield f"{name}/", path
    else:
        yield from _walk(path, f"{name}/", (*ancestors, real), found)


def _file(root: str, name: str, path: str) -> tuple[File, int]:
    """Return a file, or an empty directory, and its size. Raises :class:`_ProblemError`."""
    if problem := _what_is_wrong(name):
        raise _ProblemError(problem)
    if name.endswith("/"):
        return File(name=name), 0
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise _ProblemError(f"is a link to {shown(os.readlink(path))}, which does not exist") from None
    if not stat.S_ISREG(mode):
        raise _ProblemError("is no file: a socket, pipe or device cannot be submitted")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as opened:
        if not _is_below(_place(descriptor, path), root):
            raise _ProblemError(_out(path))
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise _ProblemError("is no longer a file")
        data = opened.read(MOST_BYTES + 1)
    return file(name, data, executable=bool(about.st_mode & stat.S_IXUSR)), len(data)


def _place(descriptor: int, path: str) -> str:
    """Return the path of an opened file as the kernel knows it. Without /proc, return the resolved ``path``."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return os.path.realpath(path)


def _is_below(path: str, root: str) -> bool:
    return path.startswith(root.rstrip("/") + "/")


def _out(path: str) -> str:
    where = shown(os.readlink(path)) if os.path.islink(path) else "elsewhere"
    return f"is a link out of the directory, to {where}: replace it with a copy"


def _what_is_wrong(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if "\\" in name or not name.isprintable():
        return "its name has a backslash or a control character"
    if any(part.startswith("-") for part in name.split("/")):
        return "its name begins with '-', which programs take for an option"
    return ""


def _said(error: OSError) -> str:
    return f"cannot be read: {error.strerror}"


def shown(name: str) -> str:
    """Return a name as printable text: what cannot be printed, or is not UTF-8, is escaped."""
    text = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
