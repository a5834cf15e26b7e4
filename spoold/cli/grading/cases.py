"""Cases in files: the input of a program (``N.in``), and its expected output (``N.ans`` or ``N.out``).

Directories below are groups. If one of them is called ``sample``, all cases outside of it are hidden: people who are
graded may not see them. A directory may be a stranger's. So only regular files are read, and a link to a directory
above itself is an error.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from spoold.cli.text import printable
from spoold.model.errors import ClientError

ENDINGS = (".ans", ".out")  # the first one counts
SAMPLE = "sample"
MOST_FILES = 50_000
MOST_LEVELS = 32
MOST_BYTES = 1 << 28  # of one file
SHOWN = 10  # problems of one directory


class Test(NamedTuple):
    """A case: its name without an ending, and the paths of its files, "" for those that it does not have.

    ``points`` is what it is worth. ``arguments`` are those of the program; None stands for the request's own.
    """

    name: str
    group: str = ""
    input: str = ""
    answer: str = ""
    hidden: bool = False
    points: float = 1.0
    compare: Mapping[str, Any] | None = None
    checker_arguments: tuple[str, ...] = ()
    arguments: tuple[str, ...] | None = None


def find(directory: str, *, needs_answers: bool = True) -> list[Test]:
    """Return the cases of a directory, in the order of their names, 2 before 10.

    Raises :class:`ClientError`, which names what is wrong with the cases, or says that there are none.
    """
    tests: list[Test] = []
    problems: list[str] = []
    for inner, names in folders(directory):
        files = set(names)
        stems = {name.removesuffix(".in") for name in names if name.endswith(".in")}
        stems |= {name[: -len(end)] for end in ENDINGS for name in names if name.endswith(end)}
        for stem in sorted(stems, key=natural):
            test = _test(directory, inner, stem, files)
            if needs_answers and not test.answer:
                where = printable(os.path.join(inner, stem))
                problems.append(f"{where}.in has neither {printable(stem)}.out nor {printable(stem)}.ans beside it")
            tests.append(test)
    refuse(directory, problems)
    if not tests:
        raise ClientError(f"{printable(directory)}: there are no cases in it. A case is N.in with N.out or N.ans")
    if any(is_sample(test.group) for test in tests):
        return [test._replace(hidden=not is_sample(test.group)) for test in tests]
    return tests


def refuse(where: str, problems: list[str]) -> None:
    """Raise :class:`ClientError` where there are problems."""
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ClientError(f"{printable(where)}: {'; '.join(problems[:SHOWN])}{more}")


def is_sample(group: str) -> bool:
    """Tell whether a group contains samples."""
    return group.partition("/")[0].lower() in (SAMPLE, "samples")


def _test(directory: str, inner: str, stem: str, files: set[str]) -> Test:
    def path(end: str) -> str:
        return os.path.join(directory, inner, stem + end) if stem + end in files else ""

    answer = next((found for end in ENDINGS if (found := path(end))), "")
    return Test(os.path.join(inner, stem), inner, path(".in"), answer)


def folders(top: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each directory from ``top`` down, as its path relative to ``top`` ("" first), with the names of its files.

    Links are followed. Raises :class:`ClientError` for a directory that cannot be read, and for too many files.
    """
    count = 0
    for inner, names in _walk(top, "", (os.path.realpath(top),)):
        count += len(names)
        if count > MOST_FILES:
            raise ClientError(f"{printable(top)} has more than {MOST_FILES} files")
        yield inner, names


def _walk(top: str, inner: str, ancestors: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    try:
        entries = sorted(os.scandir(os.path.join(top, inner)), key=lambda entry: natural(entry.name))
        directories = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except OSError as error:
        raise ClientError(f"{printable(os.path.join(top, inner))} cannot be read: {error.strerror}") from error
    yield inner, [entry.name for entry in entries if not entry.name.startswith(".") and entry.name not in directories]
    for name in directories:
        path = os.path.join(inner, name)
        real = os.path.realpath(os.path.join(top, path))
        if real in ancestors:
            raise ClientError(f"{printable(os.path.join(top, path))} is a link to a directory that contains it")
        if len(ancestors) > MOST_LEVELS:
            raise ClientError(f"{printable(os.path.join(top, path))} is more than {MOST_LEVELS} directories deep")
        yield from _walk(top, path, (*ancestors, real))


def natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key to sort by, so that 2 comes before 10."""
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+|[0-9]+", name)
    return [(0, int(part), part) if part.isdecimal() and len(part) < 19 else (1, 0, part) for part in parts]


def content(path: str) -> bytes:
    """Return the content of a file. Raises :class:`ClientError` where it is not a regular file, or cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ClientError(f"{printable(path)} is no regular file")
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ClientError(f"{printable(path)} cannot be read: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise ClientError(f"{printable(path)} is larger than {MOST_BYTES >> 20} MiB")
    return data
