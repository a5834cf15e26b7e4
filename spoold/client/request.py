"""Requests: their keys and how they are encoded. Section 3 of spool-layout.md lists every key and bound."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Required, TypedDict, Unpack

import msgspec

from spoold.client.errors import RequestError

Encoding = Literal["utf8", "base64", "hex"]
ATTRIBUTE = re.compile(r"[A-Za-z_][A-Za-z0-9_'-]*")
PLAIN = re.compile(r"[A-Za-z0-9_'+.-]+")
ENCODER = msgspec.json.Encoder()


class File(TypedDict, total=False):
    """A file, or a directory if its name ends in ``/``."""

    name: Required[str]
    content: str
    encoding: Encoding
    executable: bool


class Limits(TypedDict, total=False):
    """Limits of a phase: seconds, bytes, and numbers of processes and descriptors."""

    time: float
    cpu_time: float
    memory: int
    stdout: int
    stderr: int
    processes: int
    file_size: int
    open_files: int
    stack: int
    on_output_limit: Literal["continue", "end"]


class LimitsOfPhases(TypedDict, total=False):
    """Limits by phase. Only ``time`` has a meaning for ``dependencies``."""

    dependencies: Limits
    compile: Limits
    run: Limits


class Output(TypedDict, total=False):
    """A pattern for the names of files to be returned."""

    path: Required[str]
    required: bool


class _Options(TypedDict, total=False):
    """All keys of a request except its files, its input and its outputs."""

    args: list[str]
    env: dict[str, str]
    limits: LimitsOfPhases
    cases: list[dict[str, Any]]
    compare: dict[str, Any]
    checker: dict[str, Any]
    interactor: dict[str, Any]
    stop_on_failure: bool | Literal["group"]
    nixpkgs: str
    progress: bool
    priority: int


class Request(_Options, total=False):
    """A request as it is dropped. A plain dictionary with the same keys works as well."""

    files: list[File]
    inputs: str
    inputs_encoding: Encoding
    outputs: list[Output]
    kind: Literal["run", "list-dependencies"]


def program(
    files: Mapping[str, str | bytes],
    stdin: str | bytes = b"",
    *,
    outputs: Iterable[Output | str] = (),
    **options: Unpack[_Options],
) -> Request:
    """Return a request for files, given by name. The file ``run.sh`` is run.

    ``outputs`` are patterns for files to be returned, such as ``plot*.png``. ``options`` are other keys of the request.
    Names of files are as in a request: relative, with ``/`` between their parts. :func:`packages` makes the content of
    a ``cutor.nix``.
    """
    request = Request(files=[file(name, content) for name, content in files.items()])
    if stdin:
        request["inputs"], request["inputs_encoding"] = encoded(stdin)
    if wanted := [Output(path=each) if isinstance(each, str) else each for each in outputs]:
        request["outputs"] = wanted
    request.update(options)  # type: ignore[typeddict-item]  # they are keys of a request
    return request


def file(name: str, content: str | bytes, *, executable: bool = False) -> File:
    """Return a file of a request. A file that begins with ``#!`` or is called ``*.sh`` is executable in any case."""
    text, encoding = encoded(content)
    made = File(name=name, content=text)
    if encoding != "utf8":
        made["encoding"] = encoding
    if executable:
        made["executable"] = True
    return made


def encoded(content: str | bytes) -> tuple[str, Literal["utf8", "base64"]]:
    """Return a text and its encoding: UTF-8 content as it is, all other content in base64."""
    if isinstance(content, str):
        return content, "utf8"
    try:
        return content.decode(), "utf8"
    except UnicodeDecodeError:
        return base64.b64encode(content).decode(), "base64"


def packages(names: Iterable[str]) -> str:
    """Return a ``cutor.nix`` that provides packages of nixpkgs, named by attributes such as ``python3Packages.numpy``.

    Raises :class:`RequestError` for a text that is not such a name.
    """
    return f"{{ pkgs ? import <nixpkgs> {{}} }}: pkgs.mkShell {{ buildInputs = [ {' '.join(map(_path, names))} ]; }}\n"


def _path(name: str) -> str:
    parts = name.split(".")
    if not all(PLAIN.fullmatch(part) for part in parts):
        why = f"{name!a} is no package: name attributes of nixpkgs, such as python3 or python3Packages.numpy"
        raise RequestError(why)
    return ".".join(["pkgs", *(part if ATTRIBUTE.fullmatch(part) else f'"{part}"' for part in parts)])


def as_bytes(request: Mapping[str, Any] | bytes) -> bytes:
    """Return a request encoded as it is dropped. Raises :class:`RequestError` where a value cannot be JSON."""
    if isinstance(request, bytes):
        return request
    try:
        return ENCODER.encode(request)
    except UnicodeEncodeError as error:
        shown = ascii(error.object[:80])
        raise RequestError(f"{shown}: names of files, arguments and variables have to be UTF-8") from error
    except TypeError as error:
        raise RequestError(f"the request is not valid JSON: {error}; pass bytes to file() or program()") from error
