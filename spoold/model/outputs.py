"""Files of a run that come back: what a request asks for, what came, and what its client is told of it.

Spec: spool-layout.md, "Returned files". Names are as a request could have them, so whoever unpacks them is as safe as
the work directory was. The contents may be large. So they are read from where they lie, in pieces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from spoold.model.errors import ClientError
from spoold.model.response import ReturnedFile, encode_stream
from spoold.model.words import shown

MOST_PATTERNS = 16
ANY = "**"  # stands for any number of directories
DOT = re.compile(r"\A(?:\./++)++(?=[^/])")  # without a way back, each step of which would take memory


class Output(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Files that come back: those of the work directory that ``path`` stands for."""

    path: str
    required: bool = False


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What comes back of a run: so many files at most, each of ``file_size`` bytes at most, and all of ``total``."""

    outputs: list[Output]
    files: int
    file_size: int
    total: int


class Contents(Protocol):
    """Where the contents of files lie until they are told."""

    def pieces(self, at: int, size: int) -> Iterator[bytes]:
        """Yield ``size`` bytes from ``at`` on."""

    def close(self) -> None:
        """Forget them. May be repeated."""


class Found(NamedTuple):
    """A file that came back: its contents begin ``at`` a place. ``mode`` has nine bits."""

    name: str
    size: int
    sha256: str
    mode: int
    at: int


class Returned(NamedTuple):
    """What came back of a run, in the order of names; required patterns of which nothing did, and notes."""

    files: list[Found]
    contents: Contents
    missing: list[str]
    notes: list[str]


def with_plain_path(output: Output) -> Output:
    """Return it with its pattern as it is matched: from the work directory on, with no ``./``."""
    return msgspec.structs.replace(output, path=DOT.sub("", output.path))


def check_pattern(path: str, where: str) -> None:
    """Raise :class:`ClientError` where ``path`` is a path that files can have, and no pattern, as to its stars."""
    parts = path.split("/")
    problem = ""
    if path.endswith("/"):
        problem = "it ends in '/', and directories do not come back: with '**' after it, it stands for all files below"
    elif parts.count(ANY) > 1:
        problem = "'**' may stand in it once"
    elif any(ANY in part and part != ANY for part in parts):
        problem = "'**' stands for whole directories, between slashes; within a name it is '*'"
    if problem:
        raise ClientError(f"{where}: {shown(path)}: {problem}")


def matched_as(path: str) -> str:
    """Return the pattern that stands for the same files and ends with a name: ``a/**`` is all files below ``a``."""
    return f"{path}/*" if path == ANY or path.endswith(f"/{ANY}") else path


def told(returned: Returned, room: int) -> tuple[list[ReturnedFile], bool]:
    """Return what the response has of files, with contents of ``room`` bytes at most; and whether all have theirs."""
    files = []
    for found in returned.files:
        content: str | UnsetType = UNSET
        encoding: str | UnsetType = UNSET
        if found.size <= room:
            room -= found.size
            content, encoding = encode_stream(b"".join(returned.contents.pieces(found.at, found.size)))
        files.append(
            ReturnedFile(
                name=found.name,
                size=found.size,
                sha256=found.sha256,
                mode=f"{found.mode:04o}",
                content=content,
                encoding=encoding,
            )
        )
    return files, all(file.content is not UNSET for file in files)


def missing(outputs: Iterable[Output], matched: int) -> list[str]:
    """Return the required patterns whose bit is not in ``matched``."""
    return [output.path for at, output in enumerate(outputs) if output.required and not matched >> at & 1]
