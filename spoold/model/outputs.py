"""Files of a run that come back: those that a request asks for, those that came, and what a client is told of them.

Spec: spool-layout.md, "Returned files". Their names are names that a request may have. So to unpack them is as safe as
the work directory was. The contents may be large. So they are read in pieces from where they lie.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from spoold.model.errors import ClientError
from spoold.model.misnamed import escaped
from spoold.model.response import ReturnedFile, encode_stream
from spoold.model.words import shown

MOST_PATTERNS = 16
ANY = "**"  # matches any number of directories
DOT = re.compile(r"\A(?:\./++)++(?=[^/])")  # it never backtracks, since each step of that would take memory


class Output(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Files of the work directory that come back: those that match the pattern ``path``."""

    path: str
    required: bool = False


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What comes back of a run: at most ``files`` files, of ``file_size`` bytes each and ``total`` bytes together.

    For one of many cases, ``files`` and ``total`` are what the cases before it left, and ``together`` is what all cases
    may have.
    """

    outputs: list[Output]
    files: int
    file_size: int
    total: int
    together: Wanted | None = None


class Contents(Protocol):
    """The place where the contents of files lie until they are told."""

    def pieces(self, at: int, size: int) -> Iterator[bytes]:
        """Yield ``size`` bytes from ``at`` on."""

    def close(self) -> None:
        """Forget the contents. May be repeated."""


class Found(NamedTuple):
    """A file that came back. Its contents begin at ``at``, and ``mode`` has nine bits."""

    name: str
    size: int
    sha256: str
    mode: int
    at: int


class Returned(NamedTuple):
    """The files of a run that came back (sorted by name), the required patterns that matched none, and notes."""

    files: list[Found]
    contents: Contents
    missing: list[str]
    notes: list[str]


def with_plain_path(output: Output) -> Output:
    """Return ``output`` with the pattern as it is matched: relative to the work directory, without ``./`` in front."""
    return msgspec.structs.replace(output, path=DOT.sub("", output.path))


def check_pattern(path: str, where: str) -> None:
    """Raise :class:`ClientError` where the stars in ``path``, or a ``/`` at its end, make it no pattern."""
    parts = path.split("/")
    problem = ""
    if path.endswith("/"):
        problem = "it ends in '/', and directories do not come back: add '**' to get all files below"
    elif parts.count(ANY) > 1:
        problem = "'**' may be in it only once"
    elif any(ANY in part and part != ANY for part in parts):
        problem = "'**' has to stand alone between slashes, for whole directories: write '*' within a name"
    if problem:
        raise ClientError(f"{where}: {shown(path)}: {problem}")


def matched_as(path: str) -> str:
    """Return a pattern for the same files that ends with a name: ``a/**`` (all files below ``a``) is ``a/**/*``."""
    return f"{path}/*" if path == ANY or path.endswith(f"/{ANY}") else path


class Left:
    """What may still come back of a job's cases, out of what they may have ``together``: first come, first served."""

    def __init__(self, together: Wanted) -> None:
        self._together = together
        self._files, self._total = together.files, together.total

    def of(self, outputs: list[Output]) -> Wanted | None:
        """Return what the next case may have by its patterns ``outputs``. None where it has none."""
        if not outputs:
            return None
        return Wanted(
            outputs=outputs,
            files=self._files,
            file_size=self._together.file_size,
            total=self._total,
            together=self._together,
        )

    def take(self, returned: Returned) -> None:
        """Count what came back of a case."""
        self._files -= len(returned.files)
        self._total -= sum(file.size for file in returned.files)


def told(parts: Iterable[Returned], room: int) -> tuple[list[list[ReturnedFile]], bool]:
    """Return the files of each part for the response, and whether the response has the contents of all of them.

    ``room`` is the most bytes of contents that the response may have, of all parts together.
    """
    told_of = []
    for returned in parts:
        files = []
        for found in returned.files:
            has_room = found.size <= room
            room -= found.size if has_room else 0
            files.append(_told(found, returned.contents if has_room else None))
        told_of.append(files)
    return told_of, all(file.content is not UNSET for files in told_of for file in files)


def _told(found: Found, contents: Contents | None) -> ReturnedFile:
    content: str | UnsetType = UNSET
    encoding: str | UnsetType = UNSET
    if contents:
        content, encoding = encode_stream(b"".join(contents.pieces(found.at, found.size)))
    return ReturnedFile(
        name=found.name,
        size=found.size,
        sha256=found.sha256,
        mode=f"{found.mode:04o}",
        content=content,
        encoding=encoding,
    )


def directories(names: Iterable[str]) -> list[str]:
    """Return, for each case's name, the directory of its files in a tar. No two are the same on any file system.

    Characters other than letters, digits, ``.``, ``_`` and ``-`` are escaped, and so is a ``.`` or ``-`` at the
    beginning. So no name leads elsewhere, and no program takes one for an option.
    """
    met: set[str] = set()
    made = []
    for number, name in enumerate(names):
        directory = escaped(name.encode())
        if directory[0] in ".-":
            directory = f"%{ord(directory[0]):02X}{directory[1:]}"
        if directory.lower() in met:  # some file systems do not tell capitals from small letters
            directory = f"{directory}~{number}"
        met.add(directory.lower())
        made.append(directory)
    return made


def missing(outputs: Iterable[Output], matched: int) -> list[str]:
    """Return the required patterns whose bit is not set in ``matched``."""
    return [output.path for at, output in enumerate(outputs) if output.required and not matched >> at & 1]
