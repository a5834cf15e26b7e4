"""Reads a dropped request strictly, and says to its client what is not allowed in it.

Spec: spool-layout.md, "The request". A dropped file is read in passes over its bytes. The first pass allocates nothing,
and tells whether the file is a whole JSON value at all (it may still be arriving). The second pass counts the strings,
and the commas between values, since a short value takes many times its length in memory. It stops where no request has
more of them. The third pass reads the JSON, and marks a key that stands twice in one object. Then ``lenient`` makes of
it what the client meant. ``submission`` has the types of a request.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from itertools import islice
from typing import NoReturn

import msgspec
from msgspec.structs import replace

from spoold.model.arguments import MAX_ENTRIES, check_arguments
from spoold.model.asked_cases import MAX_CASES, STRINGS_OF_CASES, check_cases
from spoold.model.asked_paths import check_outputs, checked_path
from spoold.model.checkers import RESERVED
from spoold.model.encodings import decode
from spoold.model.errors import ClientError, IncompleteError
from spoold.model.lenient import TWICE, as_meant
from spoold.model.outputs import DOT, Output, with_plain_path
from spoold.model.submission import COMPILE_FILE, EXPRESSION_FILE, RUN_FILE, Checker, File, Interactor, Program, Request
from spoold.model.unfinished import why_not_json
from spoold.model.words import shown

MAX_EXPRESSION = 1024 * 1024
OTHER_STRINGS = 200  # keys and values of a request beside files, args and env: more than there are
LONGEST_NUMBER = 400  # digits: more than any float has
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# A string, also one without its end. If the pattern required the end, it would try each quote of an unfinished string
# as another start, to the end of the file.
STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def read_request(data: bytes, *, max_files: int, pins: frozenset[str]) -> Request:
    """Read a dropped file strictly.

    Raises :class:`IncompleteError` where the bytes are no whole JSON value (yet). Raises :class:`ClientError`, whose
    text names the key, where the value asks for something that is not allowed. ``pins`` are the names that ``nixpkgs``
    may have.
    """
    request = read_request_for_any_pin(data, max_files=max_files)
    if request.nixpkgs not in pins:
        raise ClientError(f"nixpkgs: there is no pin called {shown(request.nixpkgs)}; this host has {sorted(pins)}")
    return request


def read_request_for_any_pin(data: bytes, *, max_files: int) -> Request:
    """Read a file as :func:`read_request` does, for callers that do not know which pins there are."""
    _require_whole(data, max_files)
    _bound_values(data, max_files)
    request = _with_plain_names(msgspec.convert(as_meant(_parse(data), Request), Request))
    check_arguments(request.args, request.env)
    _check_files(request, max_files)
    if request.checker and request.interactor:
        raise ClientError("interactor: there is a checker too, and each of them says what is right: leave out one")
    if request.grader:
        _check_grader(request.grader, max_files - len(request.files))
    check_outputs(request.outputs)
    if request.kind == "list-dependencies":
        if request.files:
            raise ClientError("files: a list-dependencies request has no files; leave them out")
    else:
        _check_scripts(request, is_run=request.kind == "run")
    decode(request.inputs, request.inputs_encoding, "inputs")
    check_cases(request)
    return request


def why_incomplete(data: bytes, *, max_files: int) -> str:
    """Return why a file that will not grow any more is no request, for its client to mend."""
    try:
        _bound_values(data, max_files)
    except ClientError as error:
        return str(error)
    return why_not_json(data)


def _require_whole(data: bytes, max_files: int) -> None:
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        raise ClientError("the file starts with a byte order mark: write it as UTF-8 without one")
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except RecursionError as error:
        raise ClientError("the JSON is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if not _has_half_a_pair(data, max_files):
            raise IncompleteError("not one JSON object in UTF-8") from error


def _has_half_a_pair(data: bytes, max_files: int) -> bool:
    """Tell whether a file is whole except for a lone surrogate, which Python reads. It never becomes a request."""
    if not SURROGATE.search(data):
        return False
    _bound_values(data, max_files)
    try:
        json.loads(data.decode(errors="surrogateescape"))  # the file may also have bytes that are not UTF-8
    except (ValueError, RecursionError):
        return False
    return True


def _bound_values(data: bytes, max_files: int) -> None:
    """Refuse a file with more strings (keys are among them), or more commas between values, than any request has.

    ``data`` may be JSON of any shape, or no JSON at all.
    """
    most = (
        max_files * 2 * len(File.__struct_fields__) + MAX_ENTRIES + 2 * MAX_ENTRIES + OTHER_STRINGS + STRINGS_OF_CASES
    )
    if data.count(b'"') > 2 * most and next(islice(STRING.finditer(data), most, None), None):
        raise ClientError(
            f"the file has more than {most} keys and strings, which no request needs: {max_files} files are allowed, "
            f"{MAX_CASES} cases, and {MAX_ENTRIES} entries each of args and env"
        )
    if data.count(b",") > most and STRING.sub(b"", data).count(b",") > most:
        raise ClientError(f"the file has more than {most} commas outside of strings, which no request needs")


def _parse(data: bytes) -> object:
    """Read JSON. Bytes that are not UTF-8 become surrogates in its texts, as in PEP 383."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        seen: dict[str, object] = {}
        for key, value in pairs:
            seen[key] = TWICE if key in seen else value
        return seen

    def refuse(_: str) -> NoReturn:
        raise ClientError(f"not JSON: {why_not_json(data)}")

    def whole(digits: str) -> float:
        return int(digits) if len(digits) < LONGEST_NUMBER else (-math.inf if digits[0] == "-" else math.inf)

    text = data.decode(errors="surrogateescape")
    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse, parse_int=whole)
    except RecursionError as error:
        raise ClientError("the JSON is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ClientError(f"not JSON: {why_not_json(data)}") from error


def _with_plain_names(request: Request) -> Request:
    """Return the request with plain names of files: ``./run.sh`` becomes ``run.sh``."""
    if request.checker:
        request = replace(request, checker=replace(request.checker, files=_plain(request.checker.files)))
    if request.interactor:
        request = replace(request, interactor=replace(request.interactor, files=_plain(request.interactor.files)))
    cases = [case if not case.outputs else replace(case, outputs=_asked(case.outputs)) for case in request.cases]
    return replace(request, files=_plain(request.files), outputs=_asked(request.outputs), cases=cases)


def _plain(files: list[File]) -> list[File]:
    return [replace(file, name=DOT.sub("", file.name)) for file in files]


def _asked(outputs: list[Output]) -> list[Output]:
    return [with_plain_path(output) for output in outputs]


def _check_grader(program: Checker | Interactor, max_files: int) -> None:
    kind = program.KIND
    check_arguments(program.args, {}, f"{kind}.")
    _check_files(program, max_files, f"{kind}.")
    _check_scripts(program, f"{kind}.")
    for index, file in enumerate(program.files):
        if file.name.partition("/")[0].casefold() in RESERVED:
            raise ClientError(
                f"{kind}.files[{index}].name: {shown(file.name)}: "
                f"{' and '.join(RESERVED)} are given to the {kind}: choose another name"
            )


def _check_files(program: Program, max_files: int, below: str = "") -> None:
    if len(program.files) > max_files:
        raise ClientError(f"{below}files: {len(program.files)} files are more than the {max_files} that are allowed")
    names: dict[str, str] = {}
    for index, file in enumerate(program.files):
        where = f"{below}files[{index}].name"
        folded = unicodedata.normalize("NFC", checked_path(file.name, where)).casefold()
        if folded in names:
            raise ClientError(f"{where}: {shown(file.name)} is the same file as {shown(names[folded])}")
        names[folded] = file.name
        _check_content(file, f"{below}files[{index}]")
    for name in names:
        for at, character in enumerate(name):
            if character == "/" and name[:at] in names:
                raise ClientError(f"{below}files: {shown(names[name[:at]])} is a file and also a directory")


def _check_content(file: File, where: str) -> None:
    content = file.data(f"{where}.content ({shown(file.name)})")
    if file.is_directory and content:
        raise ClientError(f"{where}.name: {shown(file.name)} is a directory, since it ends in '/': it has no content")
    if file.content is None and not file.is_directory:
        raise ClientError(f"{where}.content ({shown(file.name)}): is missing, and every file needs it")


def _check_scripts(program: Program, below: str = "", *, is_run: bool = True) -> None:
    names = {file.name.casefold(): file.name for file in program.files}
    for script in (EXPRESSION_FILE, COMPILE_FILE, RUN_FILE):
        if names.get(script, script) != script:
            raise ClientError(f"{below}files: {shown(names[script])} has to be spelt {script}")
    if is_run and RUN_FILE not in names:
        raise ClientError(f"{below}files: there is no {RUN_FILE}, which starts the program: add it")
    try:
        expression = program.expression()
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ClientError(
            f"{below}files: {EXPRESSION_FILE} is not UTF-8 text: byte {error.start} of it is 0x{byte:02x}"
        ) from error
    if len(expression) > MAX_EXPRESSION or "\0" in expression:
        raise ClientError(f"{below}files: {EXPRESSION_FILE} has a NUL in it or more than {MAX_EXPRESSION} characters")
