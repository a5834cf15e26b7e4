"""The programs that are graded, and checkers: files and directories, in any known language."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spoold.cli import tongues
from spoold.cli.programs import is_program, require_inside
from spoold.cli.text import printable
from spoold.client import tree
from spoold.client.request import File
from spoold.model.errors import ClientError

MAINS = ("main", "__main__")
HEADERS = (".h", ".hh", ".hpp")
TESTLIB = b"testlib.h"


class Solution(NamedTuple):
    """A program: its name, and a function that makes the files of its request.

    The function may raise :class:`SpooldError` or OSError. ``path`` is its place. ``folder`` is the directory in which
    it was found, None if it was named itself.
    """

    name: str
    files: Callable[[], Sequence[File]]
    path: Path
    folder: Path | None = None


class Found(NamedTuple):
    """The solutions, and the entries of a directory that are none."""

    solutions: list[Solution]
    left_out: list[str]


class Finder:
    """Finds programs. ``packages`` are attributes of nixpkgs that each needs in addition to those of its language."""

    def __init__(self, language: str | None = None, packages: Sequence[str] = ()) -> None:
        self.language = language
        self.packages = packages

    @functools.cached_property
    def known(self) -> Mapping[str, tongues.Language]:
        """Return the table of languages, which is read once."""
        return tongues.languages()

    @functools.cached_property
    def endings(self) -> frozenset[str]:
        """Return the endings of all languages."""
        return frozenset(ending for language in self.known.values() for ending in language.extensions)

    def find(self, paths: Sequence[Path]) -> Found:
        """Return the solutions that arguments name.

        A single directory that is no program itself contains solutions. Raises :class:`ClientError` where two solutions
        have the same name.
        """
        found = Found([], [])
        if len(paths) == 1 and paths[0].is_dir() and not self.is_one(paths[0]):
            for entry in sorted(os.scandir(paths[0]), key=lambda each: each.name):
                path = Path(entry.path)
                if entry.name.startswith(".") or entry.name in tree.NOT_NEEDED:
                    continue
                if self.is_source(path) or (path.is_dir() and self.has_source(path)):
                    found.solutions.append(self.of(path, entry.name, paths[0]))
                else:
                    found.left_out.append(printable(entry.path))
        else:
            found.solutions.extend(self.of(path, os.path.normpath(path)) for path in paths)
        names = [solution.name for solution in found.solutions]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ClientError(f"{printable(twice)} is named twice")
        return found

    def of(self, path: Path, name: str, folder: Path | None = None) -> Solution:
        """Return the solution in a file or a directory, which was found in ``folder`` or named itself."""
        return Solution(name, lambda: self.files(path, folder), path, folder)

    def files(self, path: Path, folder: Path | None = None) -> Sequence[File]:
        """Return the files of a request."""
        from spoold.cli import languages  # noqa: PLC0415 - --help need not wait for it

        if folder is not None:
            require_inside(path, folder)
        return languages.program([path], self.language, self.packages, known=self.known).files

    def is_source(self, path: Path) -> bool:
        """Tell whether a path is a file in a known language."""
        return path.suffix[1:] in self.endings and path.is_file()

    def has_source(self, path: Path) -> bool:
        """Tell whether a directory is a program: it has scripts, or a file in a known language."""
        return is_program(path) or any(self.is_source(inner) for inner in sorted(path.iterdir()))

    def is_one(self, path: Path) -> bool:
        """Tell whether a directory is one program by itself: it has scripts, or a source file called main."""
        return is_program(path) or any(
            inner.stem.lower() in MAINS and self.is_source(inner) for inner in sorted(path.iterdir())
        )

    def checker(self, path: Path, protocol: str | None) -> dict[str, Any]:
        """Return the checker in a file or a directory.

        Without ``protocol``, it is testlib if the checker uses testlib.h.
        """
        if path.is_dir():
            files = self.files(path)
            uses_testlib = any(TESTLIB.decode() in file.get("content", "") for file in files)
        else:
            from spoold.cli import languages  # noqa: PLC0415 - as above

            headers = [each for each in sorted(path.absolute().parent.iterdir()) if each.suffix in HEADERS]
            uses_testlib = TESTLIB in path.read_bytes()
            if uses_testlib and TESTLIB.decode() not in {header.name for header in headers}:
                raise ClientError(f"{printable(str(path))} uses testlib.h: put that file beside it")
            files = languages.program([path.absolute(), *headers], self.language, known=self.known).files
        return {"files": files, "protocol": protocol or ("testlib" if uses_testlib else "kattis")}
