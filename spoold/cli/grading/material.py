"""The programs of a package: its submissions with the files that it includes, and its validator.

A package may define constants, which replace ``{{name}}`` in these files. The files that it includes are put beside a
submission when that is compiled. They replace the submission's own files of the same name.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from spoold import client
from spoold.cli import tongues
from spoold.cli.grading.cases import MOST_LEVELS, content
from spoold.cli.grading.documents import with_constants
from spoold.cli.grading.expected import Submission
from spoold.cli.grading.package import Package, below, checker_limits, inside
from spoold.cli.grading.solutions import HEADERS, Finder
from spoold.cli.text import printable
from spoold.client import tree
from spoold.client.request import File
from spoold.model.errors import ClientError

# Endings that two languages share. The first line decides: a .py file is Python 2 only if the line names python2, and a
# .pl file is Prolog unless the line names perl.
LANGUAGES = {".py": (re.compile(rb"#!.*python2"), "python2"), ".pl": (re.compile(rb"#!.*perl"), "prolog")}
ENDINGS = {".py2": "python2", ".py3": "python"}
FIRST_LINE = 200  # bytes
# names of languages in packages, and ours
NAMES = {
    **dict.fromkeys(("python3", "pypy3", "python3numpy"), "python"),
    "cpp": "cpp",
    "cppgmp": "cpp",
    "cgmp": "c",
    "javaalgs4": "java",
}
# our names of languages, and their directories in include/
INCLUDES = {"python": ("python3", "python"), "cpp": ("cpp", "c++")}
VALIDATORS = ("output_validators", "output_validator")
SCRIPTS = ("build", "run")
TOOLS = ("gcc", "python3")  # tools that the scripts of a validator may expect
BUILD = "[ ! -e build ] || ./build\n"
RUN = 'exec ./run "$@"\n'
VALIDATOR = "spoold-validator.sh"  # the new name of a validator's own run.sh
# The exit code must be the verdict, whatever the scores are. So this moves the scores into the message, from which
# ``results`` takes them. It keeps neither end of a talk open: what a validator closes is closed.
SCORED = f"""\
exec 3<&0
./{VALIDATOR} "$@" <&3 3<&- &
exec <&- 3<&- >&-
wait $!
code=$?
if [ "$code" = 42 ]; then
    for name in score score_multiplier; do
        if [ -e "$3$name.txt" ]; then
            read -r number <"$3$name.txt"
            {{ echo "$name=$number"; cat "$3judgemessage.txt" 2>/dev/null; }} >"$3message.txt"
            rm -f "$3$name.txt"
            mv "$3message.txt" "$3judgemessage.txt"
        fi
    done
fi
exit "$code"
"""
# Commands of the tools for packages that differ from ours. Those tools allow a stack as large as the memory.
AS_THERE = {
    "bash": 'exec bash "./$main" "$@"',
    "java": 'exec java -XX:+UseSerialGC -Xss64m "$class" "$@"',
    "kotlin": 'exec java -XX:+UseSerialGC -Xss64m -jar program.jar "$@"',
    "scala": 'exec scala -J-XX:+UseSerialGC -J-Xss64m program.jar "$@"',
    "prolog": 'exec swipl -O -q -g main -t halt "$main" "$@"',
}


def files_of(package: Package, finder: Finder, submission: Submission) -> Sequence[File]:
    """Return the files of a submission, as a request has them. Raises :class:`ClientError`."""
    from spoold.cli import languages  # noqa: PLC0415 - --help need not wait for it

    path, table = submission.path, known(finder)
    language = _language(finder, submission)
    _require_short(package, path)
    included = _includes(package, finder, path, language)
    if not included and not submission.entrypoint and path.is_file():
        program = languages.program([path], language, finder.packages, known=table)
    else:
        with tempfile.TemporaryDirectory() as directory:
            main, *others = _laid_out(package, Path(directory), path, included, submission.entrypoint)
            program = languages.program([main, *others], language, finder.packages, known=table)
    if package.languages and program.language not in [NAMES.get(code, code) for code in package.languages]:
        permitted = ", ".join(map(printable, package.languages))
        raise ClientError(f"the package does not permit its language. It permits {permitted}")
    return replaced(program.files, package.constants)


def _require_short(package: Package, path: Path) -> None:
    """Raise :class:`ClientError` where the files of a submission are longer than the package permits."""
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    size = sum(each.stat().st_size for each in files) / 1024
    if size > package.limits.code:
        raise ClientError(f"it has {size:.1f} KiB of code, and the package permits {package.limits.code:g} KiB")


def _language(finder: Finder, submission: Submission) -> str | None:
    """Return the name of a submission's language; None where the ending tells it.

    Raises :class:`ClientError` for a language that is not in the table.
    """
    if submission.language or finder.language:
        asked = submission.language or finder.language or ""
        return tongues.find(finder.known, NAMES.get(asked, asked))
    path = submission.path
    for source in sorted(path.iterdir()) if path.is_dir() else [path]:
        if source.suffix in ENDINGS:
            return tongues.find(finder.known, ENDINGS[source.suffix])
        if source.suffix in LANGUAGES and source.is_file():
            with source.open("rb") as file:
                start = file.read(FIRST_LINE)
            pattern, name = LANGUAGES[source.suffix]
            if (pattern.match(start) is not None) == (name == "python2"):
                return tongues.find(finder.known, name)
    return None


def _includes(package: Package, finder: Finder, path: Path, language: str | None) -> dict[str, Path]:
    """Return the files that a package includes, by name: those for all languages, and those for this language."""
    top = package.path / "include"
    if not top.is_dir():
        return {}
    if language is None:
        names = [path.name] if path.is_file() else sorted(each.name for each in path.iterdir())
        endings = {name.rpartition(".")[2] for name in names}
        language = next((name for name, known in finder.known.items() if endings & set(known.extensions)), "")
    found: dict[str, Path] = {}
    for name in ("default", *INCLUDES.get(language, (language,))):
        directory = top / name
        if name and directory.is_dir():
            for file in sorted(directory.rglob("*")):
                if inside(package, file).is_file():
                    found[str(file.relative_to(directory))] = file
    return found


def _laid_out(
    package: Package, directory: Path, path: Path, included: Mapping[str, Path] | None = None, entrypoint: str = ""
) -> list[Path]:
    """Copy a program and its included files into a directory. Return the copies; the first is the one to run."""
    if path.is_dir():
        is_own = path.resolve().is_relative_to(package.path.resolve())
        _copy(package.path if is_own else path, path, directory, (path.resolve(),))
    else:
        shutil.copy(path, directory / path.name)
    included = included or {}
    own = [each for each in sorted(directory.rglob("*")) if each.is_file()]
    for name, file in included.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, directory / name)
    files = [each for each in sorted(directory.rglob("*")) if each.is_file()]
    drivers = [directory / name for name in included if Path(name).stem.lower() in ("main", "__main__")]
    named = [each for each in files if entrypoint and entrypoint in (each.name, each.stem)]
    mains = [each for each in own if each.stem.lower() in ("main", "__main__")]
    first = next(iter([*named, *drivers, *mains, *own]), None)
    if first is None:
        raise ClientError(f"{printable(str(path))}: there is no file in it")
    return [first, *(each for each in files if each != first)]


def _copy(top: Path, path: Path, directory: Path, ancestors: tuple[Path, ...]) -> None:
    """Copy the content of a directory. A link is followed where it leads to something in ``top``."""
    for entry in sorted(path.iterdir()):
        if entry.name in tree.NOT_NEEDED:
            continue
        real, target = below(top, entry).resolve(), directory / entry.name
        if entry.is_dir() and (real in ancestors or len(ancestors) > MOST_LEVELS):
            raise ClientError(f"{printable(str(entry))} is a link to a directory that contains it")
        if entry.is_dir():
            target.mkdir()
            _copy(top, entry, target, (*ancestors, real))
        else:
            target.write_bytes(content(str(entry)))
            shutil.copymode(entry, target)


def replaced(files: Sequence[File], constants: Mapping[str, str]) -> Sequence[File]:
    """Return files with the constants replaced by their values."""
    if not constants:
        return files
    made = []
    for file in files:
        if "content" in file and file.get("encoding", "utf8") == "utf8":
            content_ = with_constants(file["content"], constants)
            file = {**file, "content": content_}  # noqa: PLW2901 - the same file, replaced
        made.append(file)
    return made


def checker(package: Package, finder: Finder) -> dict[str, Any] | None:
    """Return the output validator as a request has its checker or interactor; None where a package uses the default."""
    top = next((found for name in VALIDATORS if (found := package.path / name).is_dir()), None)
    if not package.has_validator or top is None:
        if package.has_validator and not package.is_newer:
            raise ClientError(
                f"{printable(package.path.name)}: its validation is custom, but it has no output_validators"
            )
        _require_no_talk(package)
        return None
    program = _validator(package, finder, inside(package, top))
    if program is None:
        _require_no_talk(package)
        return None
    files = _scored(replaced(_validator_files(package, finder, program), package.constants))
    return {"files": files, "protocol": "kattis", "limits": checker_limits(package)}


def _require_no_talk(package: Package) -> None:
    """Raise :class:`ClientError` where the programs of a package without a validator are to talk with it."""
    if package.is_interactive:
        name = printable(package.path.name)
        raise ClientError(f"{name}: it is interactive, but has no {VALIDATORS[1]} that talks with programs: add one")


def _scored(files: Sequence[File]) -> list[File]:
    """Return the files of a validator, with a run.sh that moves its scores into its message."""
    made = [File(**{**file, "name": VALIDATOR}) if file["name"] == "run.sh" else file for file in files]
    return [*made, client.file("run.sh", SCORED)]


def known(finder: Finder) -> dict[str, tongues.Language]:
    """Return the table of languages, with the commands that tools for packages use."""
    return {
        name: replace(language, run=AS_THERE[name]) if name in AS_THERE else language
        for name, language in finder.known.items()
    }


def _validator(package: Package, finder: Finder, top: Path) -> Path | None:
    """Return the one program in a directory, or the directory if that is the program; None where it is empty."""
    entries = [inside(package, each) for each in sorted(top.iterdir()) if not each.name.startswith(".")]
    directories = [each for each in entries if each.is_dir()]
    sources = [each for each in entries if finder.is_source(each)]
    if any((top / name).is_file() for name in SCRIPTS) or (top.name == VALIDATORS[1] and sources):
        return top
    if len(sources) + len(directories) > 1:
        names = ", ".join(printable(each.name) for each in (*sources, *directories))
        raise ClientError(f"{printable(str(top))}: only one validator can be used, but there are {names}")
    if directories:
        return directories[0]
    if not sources and entries:
        raise ClientError(f"{printable(str(top))}: there is no program in a known language in it")
    if not sources:
        return None
    return top if any(each.suffix in HEADERS for each in entries) else sources[0]


def _validator_files(package: Package, finder: Finder, program: Path) -> Sequence[File]:
    from spoold.cli import languages  # noqa: PLC0415 - --help need not wait for it

    if not program.is_dir():
        return languages.program([program], known=finder.known).files
    with tempfile.TemporaryDirectory() as directory:
        first, *others = _laid_out(package, Path(directory), program)
        if any((program / name).is_file() for name in SCRIPTS):
            found = tree.read(directory)
            shell = client.file("cutor.nix", client.packages(TOOLS))
            return [*found.files, shell, client.file("compile.sh", BUILD), client.file("run.sh", RUN)]
        known_first = next((each for each in (first, *others) if finder.is_source(each)), first)
        paths = [known_first, *(each for each in (first, *others) if each != known_first)]
        return languages.program(paths, known=finder.known).files
