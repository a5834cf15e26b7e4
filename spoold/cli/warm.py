"""The shells to build ahead, from expressions, requests and directories, each shell once.

The submissions of a class name few different shells, and an unreadable one must not keep the others from being built.
So an unusable file that was found in a directory is reported and left out. A file that was named by hand must be valid.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from spoold.model.dropped import MAX_EXPRESSION, read_request_for_any_pin
from spoold.model.errors import ClientError, IncompleteError
from spoold.model.submission import DEFAULT_EXPRESSION, EXPRESSION_FILE, RUN_FILE, Request

SHOWN = 3  # sources of a shell that are named


class Shell(NamedTuple):
    """A shell expression, and the name of the pin that it is built with."""

    expression: str
    nixpkgs: str


class LeftOut(NamedTuple):
    """A file or directory that was found in a directory and names no shell, with the reason."""

    source: Path
    reason: str


class Wanted(NamedTuple):
    """Shells with the files and directories that ask for them, in the order in which they were found."""

    shells: dict[Shell, list[Path]]
    left_out: list[LeftOut]


def find(sources: Iterable[Path], pin: str, max_files: int) -> Wanted:
    """Return the shells that ``sources`` ask for, with the pin called ``pin`` where they name no other.

    Raises :class:`ClientError` where one of ``sources`` itself names no shell.
    """
    wanted = Wanted({}, [])
    for source in sources:
        is_folder = _is_folder(source)
        found = list(_below(source)) if is_folder else [source]
        if not found:
            raise ClientError(f"{source}: there is no shell, request or submission in it")
        for path in found:
            try:
                for shell in dict.fromkeys(_shells(path, pin, max_files)):
                    wanted.shells.setdefault(shell, []).append(path)
            except (ClientError, OSError) as error:
                if not is_folder:
                    raise ClientError(f"{path}: {_reason(error)}") from error
                wanted.left_out.append(LeftOut(path, _reason(error)))
    return wanted


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _is_folder(path: Path) -> bool:
    """Tell whether a path is a directory of submissions, and not a submission itself."""
    return path.is_dir() and not any((path / name).is_file() for name in (EXPRESSION_FILE, RUN_FILE))


def _below(folder: Path) -> Iterator[Path]:
    """Yield the shells, requests and submissions in a directory. Hidden names and links are left out."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.is_symlink():
            continue
        if entry.is_dir() and _is_folder(path):
            yield from _below(path)
        elif entry.is_dir() or path.suffix in (".nix", ".json"):
            yield path


def _shells(path: Path, pin: str, max_files: int) -> Iterator[Shell]:
    if path.is_dir():
        file = path / EXPRESSION_FILE
        yield Shell(_text(file) if file.is_file() else DEFAULT_EXPRESSION, pin)
    elif path.suffix == ".json":
        request = _request(path, max_files)
        for program in (request, request.grader):
            if program:
                yield Shell(program.expression(), request.nixpkgs)
    else:
        yield Shell(_text(path), pin)


def _request(path: Path, max_files: int) -> Request:
    try:
        request = read_request_for_any_pin(path.read_bytes(), max_files=max_files)
    except IncompleteError as error:
        raise ClientError(f"it is not a request: {error}") from error
    if request.kind == "list-dependencies":
        raise ClientError("it only asks for the list of packages, so there is nothing to build")
    return request


def _text(path: Path) -> str:
    try:
        expression = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ClientError("not UTF-8 text") from error
    if len(expression) > MAX_EXPRESSION:
        raise ClientError(f"more than {MAX_EXPRESSION} characters")
    return expression


def names(paths: list[Path]) -> str:
    """Return the names of some of the files and directories that ask for a shell, and the number of the others."""
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(map(str, paths[:SHOWN])) + more
