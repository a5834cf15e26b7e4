"""Programs in files: their languages, by the endings of file names, and the requests that compile and run them.

Theory of operation. ``tongues`` has the table of languages. A request contains the files, and the ``cutor.nix``,
``compile.sh`` and ``run.sh`` that the language makes for them. If a file of the program has one of these names, it is
used instead.

Files keep their places relative to each other: the program runs in the directory that holds them all. So a request
depends on the files only, and the same files are the same request wherever they are.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from spoold import client
from spoold.cli import java, tongues
from spoold.cli.text import printable
from spoold.cli.tongues import Language
from spoold.client.request import File
from spoold.model.errors import ClientError

EXPRESSION, COMPILE, RUN = "cutor.nix", "compile.sh", "run.sh"
FIRST_LINE = 200  # bytes at the start of a file that are searched for "#!" and its interpreter


class Program(NamedTuple):
    """A program as a request has it: all its ``files``, scripts included, and the scripts by themselves.

    ``expression`` is None if the program needs no packages beyond the tools of every shell. ``compile`` is None if
    there is nothing to compile. ``language`` is the name of the language, "" if the files have their own ``run.sh``.
    """

    language: str
    files: list[File]
    expression: str | None
    compile: str | None
    run: str


class _Source(NamedTuple):
    """A file and its name in the request. ``chosen`` is False if it was found in a directory and not named itself."""

    name: str
    data: bytes
    executable: bool = False
    chosen: bool = True

    @property
    def ending(self) -> str:
        return PurePosixPath(self.name).suffix[1:]

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    def is_in(self, language: Language) -> bool:
        """Tell whether the file's ending is one of a language.

        MAIN.PY counts as Python, but main.C does not count as C.
        """
        return self.ending in language.extensions or (
            len(self.ending) > 1 and self.ending.lower() in language.extensions
        )


def program(
    paths: Sequence[Path],
    language: str | None = None,
    own_packages: Iterable[str] | None = None,
    known: Mapping[str, Language] | None = None,
) -> Program:
    """Return the program in files or in a directory. ``own_packages`` are further attributes of nixpkgs for it.

    The first file in a known language is the one to run. In a directory, it is the file called ``main`` if there is
    one. ``known`` is the table of languages, for callers that call often: see :func:`tongues.languages`.

    Raises :class:`ClientError` where no language fits or more than one does, and where a file cannot be read. Raises
    :class:`OperatorError` where a table of languages is wrong.
    """
    sources = _of_directory(paths[0]) if len(paths) == 1 and paths[0].is_dir() else _named(paths)
    packages = tuple(own_packages or ())
    if packages and any(source.name == EXPRESSION for source in sources):
        raise ClientError(f"--packages: {EXPRESSION} among the files already names packages: use only one")
    if any(source.name == RUN for source in sources):
        return _complete("", sources, {EXPRESSION: _expression(packages)})
    known = tongues.languages() if known is None else known
    name, main = _chosen(sources, known, language)
    return _made(sources, main, name, known[name], packages)


def program_of_text(
    text: str, name: str, beside: Sequence[Path], own_packages: Iterable[str], known: Mapping[str, Language]
) -> Program:
    """Return the program for a text in the language ``name`` of ``known``, with the files ``beside`` it."""
    ending = (known[name].extensions or ("txt",))[0]
    main = _Source(f"main.{ending}", text.encode(errors="surrogateescape"))
    sources = [main, *(_named(beside) if beside else ())]
    if any(source.name in (main.name, RUN, EXPRESSION) for source in sources[1:]):
        raise ClientError(f"-c makes {main.name}, {RUN} and {EXPRESSION} itself: give other files other names")
    return _made(sources, main, name, known[name], tuple(own_packages))


def _made(sources: list[_Source], main: _Source, name: str, language: Language, packages: tuple[str, ...]) -> Program:
    """Return a program with the scripts that its language makes."""
    variables = {}
    if language.java:
        sources, main, variables["class"] = _named_for_java(sources, main, language)
    ours = dict.fromkeys([source.name for source in sources if source.is_in(language)] or [main.name])
    variables["main"] = shlex.quote(main.name)
    variables["files"] = f"({' '.join(map(shlex.quote, ours))})"
    scripts = {
        EXPRESSION: _expression([*dict.fromkeys((*language.packages, *packages))]),
        COMPILE: _script(language.compile, variables) if language.compile else None,
        RUN: _script(language.run, variables),
    }
    return _complete(name, sources, scripts)


def _expression(packages: Sequence[str]) -> str | None:
    return client.packages(packages) if packages else None


def _script(commands: str, variables: Mapping[str, str]) -> str:
    """Return commands, preceded by assignments of the variables that they use."""
    used = [f"{name}={value}\n" for name, value in variables.items() if re.search(rf"\$\{{?{name}\b", commands)]
    return "".join([*used, commands.strip("\n"), "\n"])


def _complete(language: str, sources: list[_Source], made: Mapping[str, str | None]) -> Program:
    """Return the program. Scripts among its own files replace those that were made."""
    own = {source.name: source.data.decode(errors="replace") for source in sources}
    scripts = {name: own.get(name, made.get(name)) for name in (EXPRESSION, COMPILE, RUN)}
    files = [_file(source) for source in sources]
    files += [client.file(name, text) for name, text in scripts.items() if text is not None and name not in own]
    return Program(language, files, scripts[EXPRESSION], scripts[COMPILE], scripts[RUN] or "")


def _file(source: _Source) -> File:
    if source.name.endswith("/"):
        return File(name=source.name)
    return client.file(source.name, source.data, executable=source.executable)


# -- the language


def _chosen(sources: list[_Source], known: Mapping[str, Language], asked: str | None) -> tuple[str, _Source]:
    """Return the name of the language and the file to run."""
    if asked is not None:
        name = tongues.find(known, asked)
        return name, _first([source for source in sources if source.is_in(known[name])] or sources)
    choices = {source: found for source in sources if (found := _languages_of(source, known))}
    if not choices:
        raise ClientError(f"{printable(sources[0].name)}: {_why_none(sources[0], known)}")
    main = _first(choices)
    if len(choices[main]) > 1:
        titles = " and ".join(known[name].title or name for name in choices[main])
        choice = " or ".join(f"--language {name}" for name in choices[main])
        raise ClientError(f"{printable(main.name)}: programs in {titles} end in .{main.ending}: use {choice}")
    return choices[main][0], main


def _first(sources: Iterable[_Source]) -> _Source:
    """Return the file to run: the first one that was named, or for a directory the one called main."""
    return min(sources, key=lambda source: not source.chosen and source.stem.lower() != "main")


def _languages_of(source: _Source, known: Mapping[str, Language]) -> list[str]:
    """Return the languages that a file may be in, by its ending. The "#!" line decides where the ending does not."""
    by_ending = [name for name, language in known.items() if source.is_in(language)]
    if len(by_ending) == 1 or not source.data.startswith(b"#!"):
        return by_ending
    interpreter = _interpreter(source.data[2:FIRST_LINE].decode(errors="replace"))
    by_line = [name for name, language in known.items() if interpreter in (name, *language.aliases)]
    return [name for name in by_line if name in by_ending or not by_ending] or by_ending


def _interpreter(start: str) -> str:
    """Return the name of the interpreter after ``#!``, without a version."""
    words = (start.splitlines() or [""])[0].split()
    names = [PurePosixPath(word).name for word in words if not word.startswith("-") and "=" not in word]
    name = next((name for name in names if name != "env"), "")
    return re.sub(r"(?<=[A-Za-z])[0-9.]+$", "", name)


def _why_none(source: _Source, known: Mapping[str, Language]) -> str:
    ending = printable(source.ending)
    said = f"no known language has the ending .{ending}" if ending else "its name does not tell its language"
    return f"{said}: use --language NAME. The languages are: {', '.join(known)}"


def _named_for_java(sources: list[_Source], main: _Source, language: Language) -> tuple[list[_Source], _Source, str]:
    """Return the files with the names that javac wants, the file to run, and the class to run in it."""
    renamed, able = [], []
    for source in sources:
        if source is not main and not source.is_in(language):
            renamed.append(source)
            continue
        about = java.look(source.data.decode(errors="replace"), source.stem)
        path = PurePosixPath(source.name).with_name(f"{about.public or source.stem}.java")
        renamed.append(source._replace(name=str(path)))
        able.append((not about.has_main, source is not main, renamed[-1], about.main))
    *_, to_run, name = min(able, key=lambda each: each[:2])
    return renamed, to_run, name


# -- the files


def _named(paths: Sequence[Path]) -> list[_Source]:
    """Return files with the names that they have in the request."""
    places = [os.path.abspath(path) for path in dict.fromkeys(paths)]
    top = os.path.commonpath([os.path.dirname(place) for place in places])
    return [_read(place, os.path.relpath(place, top)) for place in places]


def _read(path: str, name: str) -> _Source:
    try:
        with open(path, "rb") as file:
            return _Source(name, file.read(), bool(os.fstat(file.fileno()).st_mode & 0o100))
    except IsADirectoryError as error:
        raise ClientError(f"{printable(path)} is a directory: name the files in it, or the directory alone") from error
    except OSError as error:
        raise ClientError(f"{printable(path)} cannot be read: {error.strerror}") from error


def _of_directory(path: Path) -> list[_Source]:
    """Return the content of a directory. Raises :class:`ClientError` where some of it cannot be submitted."""
    from spoold.client import tree  # noqa: PLC0415 - a single file does not need it

    found = tree.read(path)
    if found.problems:
        raise ClientError("; ".join(f"{problem.name}: {problem.why}" for problem in found.problems))
    return [_Source(file["name"], _content(file), file.get("executable", False), chosen=False) for file in found.files]


def _content(file: File) -> bytes:
    text = file.get("content", "")
    return base64.b64decode(text) if file.get("encoding") == "base64" else text.encode()
