"""The request that a command line asks for: a directory or a JSON file, with options applied to it."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from spoold import client
from spoold.cli import completing
from spoold.cli.text import printable
from spoold.client import tree
from spoold.client.request import as_bytes, encoded
from spoold.model.errors import ClientError, IncompleteError

F = TypeVar("F", bound=Callable[..., Any])
STDIN = Path("-")
MANY = 1_000_000  # files in a request: the limit of the spool is not known here, and its daemon checks it
PHASES = ("run", "compile", "dependencies")
TIMES, SIZES = ("time", "cpu_time"), ("memory", "stdout", "stderr", "file_size", "stack")
COUNTS, WORDS = ("processes", "open_files"), {"on_output_limit": ("continue", "end")}
LIMIT = re.compile(r"(?:(?P<phase>[a-z]+)\.)?(?P<key>[a-z_]+)=(?P<value>.+)")
NUMBER = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>[A-Za-z]*)")
UNITS_OF_TIME = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0}
UNITS_OF_SIZE = {"": 1, "B": 1, **{letter: 1 << 10 * (at + 1) for at, letter in enumerate("KMG")}}
EXPRESSION = "cutor.nix"


class RefusedError(ClientError):
    """A daemon refuses the request, or this check finds that it would refuse it, before the request is sent."""

    is_refusal = True


class Asked(NamedTuple):
    """The options of a request."""

    stdin: str | None = None
    arguments: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    nixpkgs: str | None = None
    priority: int | None = None
    outputs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    progress: bool = False


OPTIONS = {
    "stdin": click.option(
        "--stdin",
        metavar="FILE",
        shell_complete=completing.files,
        help="The standard input of run.sh; - is that of this command.",
    ),
    "arg": click.option(
        "--arg",
        "arguments",
        multiple=True,
        metavar="ARG",
        help="An argument of run.sh; may be repeated. Give no secrets: all users of the host can read it meanwhile.",
    ),
    "env": click.option(
        "--env",
        "variables",
        multiple=True,
        metavar="NAME=VALUE",
        help="A variable of run.sh; may be repeated. Others can read this command line, so put secrets into a FILE.",
    ),
    "limit": click.option(
        "--limit",
        "limits",
        multiple=True,
        metavar="[PHASE.]KEY=VALUE",
        help="A limit: run.time=2, compile.memory=512M. Without a phase it is a limit of run. May be repeated.",
    ),
    "packages": click.option(
        "--packages",
        multiple=True,
        metavar="NAMES",
        help="Packages of nixpkgs that the program needs, such as 'python3 jq', in place of a cutor.nix.",
    ),
    "nixpkgs": click.option("--nixpkgs", metavar="NAME", help="The pin that packages come from."),
    "output": click.option(
        "--output",
        "outputs",
        multiple=True,
        metavar="PATTERN",
        help="Files to return, such as 'plot*.png'; may be repeated.",
    ),
    "priority": click.option(
        "--priority",
        type=int,
        metavar="N",
        help="Of your submissions, those with a higher priority run first; -100 to 100.",
    ),
    "progress": click.option(
        "--progress", is_flag=True, help="Publish the output so far while the program runs; see --follow."
    ),
}


def request_options(command: F) -> F:
    """Give a command all options of a request, as the keywords of :class:`Asked`."""
    return options_of(*OPTIONS)(command)


def options_of(*names: str) -> Callable[[F], F]:
    """Return a decorator that gives a command some of ``OPTIONS``."""

    def given(command: F) -> F:
        for name in reversed(names):
            command = OPTIONS[name](command)
        return command

    return given


def data_of(source: Path, asked: Asked, *, leave_out: bool) -> bytes:
    """Return the request as it is dropped. Raises :class:`ClientError` where no valid request can be made."""
    if source.is_dir():
        return as_bytes(laid_over(_of_directory(source, asked, leave_out=leave_out), asked))
    if source == STDIN and asked.stdin == "-":
        raise click.UsageError("the request and --stdin cannot both come from standard input")
    data = sys.stdin.buffer.read() if source == STDIN else source.read_bytes()
    if asked == Asked():
        return data
    check(data, source)  # only a valid request can be changed
    return as_bytes(laid_over(json.loads(data), asked))


def _of_directory(source: Path, asked: Asked, *, leave_out: bool) -> dict[str, Any]:
    found = tree.read(source)
    if found.left_out:
        click.echo(f"left out, because no program needs them: {', '.join(found.left_out)}", err=True)
    for problem in found.problems:
        click.echo(f"{problem.name}: {problem.why}" + ("; left out" if leave_out else ""), err=True)
    if found.problems and not leave_out:
        raise ClientError(
            f"{printable(str(source))}: not submitted. Correct the files above, or submit without them: --leave-out"
        )
    tree.require_program(source, found)
    if asked.packages and any(file["name"] == EXPRESSION for file in found.files):
        raise ClientError(f"--packages: the directory has a {EXPRESSION}, which already names packages: use only one")
    return {"files": found.files}


def laid_over(request: dict[str, Any], asked: Asked) -> dict[str, Any]:
    """Return a request with the options applied: each replaces the value in the request, or is added to it."""
    if asked.packages:
        names = [name for words in asked.packages for name in words.split()]
        files = request.get("files") or []
        if any(file.get("name") == EXPRESSION for file in files):
            raise ClientError(f"--packages: the request has a {EXPRESSION}, which already names packages: use only one")
        request["files"] = [*files, client.file(EXPRESSION, client.packages(names))]
    if asked.stdin is not None:
        request["inputs"], request["inputs_encoding"] = encoded(inputs(asked.stdin))
    if asked.arguments:
        request["args"] = list(asked.arguments)
    if asked.variables:
        request["env"] = dict(request.get("env") or {}) | dict(map(_variable, asked.variables))
    if asked.limits:
        request["limits"] = _limits(dict(request.get("limits") or {}), asked.limits)
    if asked.outputs:
        request["outputs"] = [*(request.get("outputs") or []), *({"path": path} for path in asked.outputs)]
    for key in ("nixpkgs", "priority"):
        if getattr(asked, key) is not None:
            request[key] = getattr(asked, key)
    if asked.progress:
        request["progress"] = True
    return request


def inputs(path: str) -> bytes:
    """Return the content of the file that ``--stdin`` names."""
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise click.UsageError(f"--stdin: {path}: {error.strerror}") from error


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise click.UsageError("--env: write NAME=VALUE")
    return name, value


def _limits(limits: dict[str, Any], asked: tuple[str, ...]) -> dict[str, Any]:
    for text in asked:
        match = LIMIT.fullmatch(text)
        phase = (match["phase"] or "run") if match else ""
        if match is None or phase not in PHASES:
            raise click.UsageError(f"--limit {text}: write [PHASE.]KEY=VALUE. PHASE is one of {', '.join(PHASES)}")
        limits[phase] = dict(limits.get(phase) or {}) | {match["key"]: _limit(match["key"], match["value"])}
    return limits


def _limit(key: str, value: str) -> float | str:
    match = NUMBER.fullmatch(value)
    if key in WORDS and value in WORDS[key]:
        return value
    if match and key in TIMES and match["unit"] in UNITS_OF_TIME:
        return float(match["number"]) * UNITS_OF_TIME[match["unit"]]
    if match and key in SIZES and (unit := match["unit"].removesuffix("iB").upper()) in UNITS_OF_SIZE:
        return int(float(match["number"]) * UNITS_OF_SIZE[unit])
    if match and key in COUNTS and match["number"].isdecimal() and not match["unit"]:
        return int(match["number"])
    raise click.UsageError(f"--limit {key}={value}: {_form(key)}")


def _form(key: str) -> str:
    """Say how the value of a limit is written, or which limits there are."""
    if key in TIMES:
        return f"{key} is a number of seconds, or ends in s, ms or min, such as 2 or 500ms"
    if key in SIZES:
        return f"{key} is a number of bytes, or ends in K, M or G, such as 64M"
    if key in COUNTS:
        return f"{key} is a whole number"
    if key in WORDS:
        return f"{key} is one of {', '.join(WORDS[key])}"
    return f"KEY is one of {', '.join((*TIMES, *SIZES, *COUNTS, *WORDS))}"


class _AnyPin(frozenset[str]):
    """Accepts every pin: the pins of the spool are not known here, and its daemon checks them."""

    def __contains__(self, _: object) -> bool:
        return True


def check(data: bytes, source: Path, max_files: int = MANY) -> None:
    """Raise :class:`RefusedError` where the daemon would refuse the request in ``source``."""
    hint = (
        ""
        if source.is_dir() or source == STDIN or source.suffix == ".json"
        else ". A request is a JSON file. `spoolctl run FILE` runs a program. Put a program of several files "
        "into a directory, with a run.sh that starts it"
    )
    where = "standard input" if source == STDIN else printable(os.fspath(source))
    check_bytes(data, where, hint, max_files=max_files)


def check_bytes(data: bytes, where: str, hint: str = "", *, max_files: int = MANY) -> None:
    """Raise :class:`RefusedError` where the daemon would refuse a request.

    The text is the daemon's: both share the code.
    """
    if reason := why_refused(data, max_files):
        raise RefusedError(f"{where}: {reason}{hint}")


def why_refused(data: bytes, max_files: int = MANY) -> str:
    """Return why the daemon would refuse a request; "" where it would accept the request."""
    from spoold.model.dropped import read_request, why_incomplete  # noqa: PLC0415 - --help need not wait for it

    try:
        read_request(data, max_files=max_files, pins=_AnyPin())
    except IncompleteError:
        return f"it is no JSON: {why_incomplete(data, max_files=max_files)}"
    except ClientError as error:
        return str(error)
    return ""
