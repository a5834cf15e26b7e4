"""Programs named on the command line: files of any language, directories, requests, and lists of them.

| an argument | is |
|---|---|
| a source file | a program in the language of its ending, see ``languages`` |
| a directory with ``run.sh`` or ``cutor.nix`` | a program |
| any other directory | the programs in it, by these rules; other entries are left out, and reported |
| ``*.json`` | a request |
| ``*.jsonl``, or ``-`` for standard input | a program for each line |

A line is a JSON object. ``name`` is the name of the program. The object has one of three keys: ``request``, a request;
``path``, one of the arguments above, relative to the directory of the list; or ``source``, the text of a program. A
``source`` goes with ``file``, its file name, which tells the language, or with ``language``. All other keys are keys of
a request, and replace those that are there.

A program is read when it is submitted, so thousands of programs need little memory. An error in a program is reported
for that program only, and the others run.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from spoold.cli import asked, tongues
from spoold.cli.sweep import Program
from spoold.cli.text import printable
from spoold.client import tree
from spoold.client.request import Request, as_bytes, encoded
from spoold.model.errors import ClientError

SCRIPTS = ("run.sh", "cutor.nix")
STDIN = Path("-")
KEYS = ("name", "request", "path", "source", "file", "language")


class Found(NamedTuple):
    """The programs, and the entries of directories that are no programs."""

    programs: list[Program]
    left_out: list[str]


class Reader:
    """Makes programs from arguments. ``options`` apply to each request. ``inputs`` is the input of each, or None."""

    def __init__(
        self,
        options: asked.Asked,
        *,
        inputs: bytes | None = None,
        language: str | None = None,
        leave_out: bool = False,
    ) -> None:
        self._packages = [name for words in options.packages for name in words.split()]
        self._options = options
        self._inputs = inputs
        self._language = language
        self._leave_out = leave_out

    @functools.cached_property
    def known(self) -> Mapping[str, tongues.Language]:
        """Return the table of languages, which is read once."""
        return tongues.languages()

    def find(self, paths: list[Path]) -> Found:
        """Return the programs that arguments name. Raises :class:`ClientError` for a list that cannot be read."""
        found = Found([], [])
        names: set[str] = set()
        for program in self._all(paths, found.left_out):
            if program.name in names:
                raise ClientError(
                    f"{printable(program.name)}: two programs have that name: list each only once, or rename one"
                )
            names.add(program.name)
            found.programs.append(program)
        return found

    def _all(self, paths: list[Path], left_out: list[str]) -> Iterator[Program]:
        for path in paths:
            if path == STDIN or path.suffix == ".jsonl":
                yield from self._of_lines(path)
            elif path.is_dir() and not is_program(path):
                yield from self._of_folder(path, left_out)
            else:
                yield self._of_path(os.path.normpath(path), path)

    def _of_path(self, name: str, path: Path, over: Mapping[str, Any] | None = None) -> Program:
        return Program(name, lambda: self._request(path, over or {}))

    def _of_folder(self, path: Path, left_out: list[str]) -> Iterator[Program]:
        try:
            entries = sorted(os.scandir(path), key=lambda each: each.name)
        except OSError as error:
            raise ClientError(f"{printable(str(path))} cannot be read: {error.strerror}") from error
        for entry in entries:
            inner = Path(entry.path)
            if entry.name.startswith(".") or entry.name in tree.NOT_NEEDED:
                continue
            if (entry.is_dir() and is_program(inner)) or (entry.is_file() and self._is_source(inner)):
                yield Program(entry.name, functools.partial(self._of_entry, inner, path))
            else:
                left_out.append(printable(entry.path))

    def _of_entry(self, path: Path, folder: Path) -> bytes:
        require_inside(path, folder)
        return self._request(path, {})

    def _is_source(self, path: Path) -> bool:
        ending = path.suffix[1:]
        return ending == "json" or any(ending in language.extensions for language in self.known.values())

    def _of_lines(self, path: Path) -> Iterator[Program]:
        for number, line in enumerate(_lines(path), 1):
            if not line.strip():
                continue
            where = f"{'standard input' if path == STDIN else printable(str(path))}: line {number}"
            said = _object(line, where)
            name = said.get("name") or said.get("path") or f"line {number}"
            if not isinstance(name, str):
                raise ClientError(f"{where}: name: it has to be a string")
            if sum(key in said for key in ("request", "path", "source")) != 1:
                raise ClientError(f"{where}: it needs one of request, path and source")
            over = {key: value for key, value in said.items() if key not in KEYS}
            if unknown := [key for key in over if key not in Request.__annotations__]:
                raise ClientError(f"{where}: {printable(unknown[0])}: there is no such key, here or in a request")
            if "path" in said and not _is_path(said["path"]):
                raise ClientError(f"{where}: path: it has to be the path of a file or a directory")
            yield self._of_line(name, said, over, Path() if path == STDIN else path.parent)

    def _of_line(self, name: str, said: Mapping[str, Any], over: Mapping[str, Any], directory: Path) -> Program:
        if "path" in said:
            return self._of_path(name, directory / said["path"], over)
        if "request" in said:
            return Program(name, lambda: self._finished(said["request"], over))
        return Program(name, lambda: self._of_source(name, said, over))

    # -- requests

    def _request(self, path: Path, over: Mapping[str, Any]) -> bytes:
        if path.suffix == ".json" and not path.is_dir():
            data = path.read_bytes()
            if not over and self._options == asked.Asked() and self._inputs is None:
                return _checked(data)
            return self._finished(json.loads(_checked(data)), over)
        if self._leave_out and (path / "run.sh").is_file():
            return self._finished({"files": tree.read(path).files}, over)
        return self._of_files(path, self._language, over)

    def _of_files(self, path: Path, language: str | None, over: Mapping[str, Any]) -> bytes:
        from spoold.cli import languages  # noqa: PLC0415 - --help need not wait for it

        program = languages.program([path], language, self._packages, known=self.known)
        return self._finished({"files": program.files}, over, has_packages=True)

    def _of_source(self, name: str, said: Mapping[str, Any], over: Mapping[str, Any]) -> bytes:
        language = _text(said, "language") if "language" in said else self._language
        file = _text(said, "file") if "file" in said else Path(name).name if language is None else self._file(language)
        if "/" in file or file in ("", ".", ".."):
            raise ClientError(f"file: {printable(file)!a}: it has to be the name of one file, without a directory")
        import tempfile  # noqa: PLC0415 - few lists contain sources

        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / file
            path.write_bytes(_encoded(_text(said, "source")))
            return self._of_files(path, language, over)

    def _file(self, language: str) -> str:
        endings = self.known[tongues.find(self.known, language)].extensions
        return f"main.{endings[0]}" if endings else "main"

    def _finished(self, request: Any, over: Mapping[str, Any], *, has_packages: bool = False) -> bytes:
        if not isinstance(request, dict):
            raise ClientError("request: it has to be an object")
        made = request | dict(over)
        if self._inputs is not None:
            made["inputs"], made["inputs_encoding"] = encoded(self._inputs)
        options = self._options._replace(packages=()) if has_packages else self._options
        data = _checked(as_bytes(made))
        return data if options == asked.Asked() else _checked(as_bytes(asked.laid_over(made, options)))


def is_program(path: Path) -> bool:
    """Tell whether a directory is one program."""
    return any((path / name).is_file() for name in SCRIPTS)


def require_inside(path: Path, folder: Path) -> None:
    """Raise :class:`ClientError` for an entry of a folder that leads out of it or is too large.

    A stranger may have made it.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ClientError(
            f"{printable(str(path))} is a link out of the directory: replace it with a copy, or name it as an argument"
        )
    if path.is_file() and path.stat().st_size > tree.MOST_BYTES:
        raise ClientError(f"{printable(str(path))} is larger than {tree.MOST_BYTES >> 20} MiB")


def _checked(data: bytes) -> bytes:
    """Return a request that the daemon will take. Raises :class:`ClientError` with the daemon's reason otherwise."""
    if reason := asked.why_refused(data):
        raise ClientError(reason)
    return data


def _lines(path: Path) -> Iterator[bytes]:
    try:
        if path == STDIN:
            yield from sys.stdin.buffer.read().splitlines()
            return
        with open(path, "rb") as file:
            yield from file
    except OSError as error:
        raise ClientError(f"{printable(str(path))} cannot be read: {error.strerror}") from error


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ClientError(f"{where}: it is no JSON: {printable(str(error))}") from error
    if not isinstance(said, dict):
        raise ClientError(f"{where}: each line has to be an object")
    return said


def _text(said: Mapping[str, Any], key: str) -> str:
    value = said[key]
    if not isinstance(value, str):
        raise ClientError(f"{key}: it has to be a string")
    return value


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ClientError(f"source: it is not text: {error.reason}") from error


def _is_path(said: object) -> bool:
    try:
        return isinstance(said, str) and bool(said) and b"\0" not in os.fsencode(said)
    except UnicodeEncodeError:
        return False


def said_of(left_out: list[str]) -> None:
    """Report the entries of directories that are no programs."""
    if left_out:
        more = f", and {len(left_out) - 20} more" if len(left_out) > 20 else ""
        click.echo(f"left out, because they are no programs: {', '.join(left_out[:20])}{more}", err=True)
