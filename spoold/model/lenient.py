"""Reads a request as its client meant it, whatever encoder wrote it, and says in our own words what is wrong with it.

Spec: spool-layout.md, "The request". Some encoders write ``null`` for a missing value, an empty list for an empty
object, or ``67108864.0`` for a whole number. Anything else is refused. The reason names the place, and what is allowed
there. A client never sees a parser's words: they are about our types, not about the client's.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
import types
from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from spoold.model.errors import ClientError
from spoold.model.instead import instead
from spoold.model.words import shown

# The words that clients of other services write for our keys.
ELSEWHERE = {
    "cases": ("tests", "testcases", "test_cases", "testCases"),
    "expected": ("expected_output", "answer", "output", "outputs", "expected_stdout"),
    "checker": ("validator", "output_validator", "grader", "special_judge", "spj"),
    "interactor": ("interactive", "interaction", "interactive_judge"),
    "points": ("score", "weight", "worth"),
    "group": ("subtask", "groups"),
    "hidden": ("secret", "private"),
    "stop_on_failure": ("fail_fast", "stop_on_fail", "stop_at_first_failure"),
    "args": ("arguments", "argv", "cmd_args", "command_line_arguments", "run_args"),
    "content": ("contents", "data", "text", "body", "source"),
    "encoding": ("content_encoding", "enc"),
    "env": ("environment", "environment_variables", "envs", "variables"),
    "float_absolute": ("float_absolute_tolerance", "float_tolerance", "abs_tol", "tolerance", "epsilon"),
    "float_relative": ("float_relative_tolerance", "rel_tol"),
    "files": ("sources", "source_files", "source_code", "code", "program", "script", "copyIn", "content", "filename"),
    "inputs": ("stdin", "input", "standard_input", "std_in"),
    "inputs_encoding": ("stdin_encoding", "input_encoding"),
    "name": ("filename", "file_name", "path"),
    "outputs": ("output_files", "artifacts", "copyOut", "copyOutCached", "returned_files", "collect"),
    "path": ("name", "glob", "pattern", "file", "filename"),
    "required": ("mandatory", "must_exist"),
    "limits.run": ("run",),
    "limits.compile": ("compile",),
    "limits.dependencies": ("dependencies",),
    "limits.run.cpu_time": ("cpu_time", "cpu_time_limit", "cpuLimit", "run_cpu_time"),
    "limits.run.memory": ("memory", "memory_limit", "memoryLimit", "run_memory_limit", "ram"),
    "limits.run.file_size": ("file_size", "max_file_size"),
    "limits.run.on_output_limit": ("on_output_limit",),
    "limits.run.open_files": ("open_files", "max_open_files"),
    "limits.run.processes": ("processes", "max_processes_and_or_threads", "procLimit", "max_processes"),
    "limits.run.stack": ("stack", "stack_limit", "stack_size"),
    "limits.run.stdout": ("output_limit", "stdoutMax"),
    "limits.run.time": ("time", "timeout", "time_limit", "wall_time_limit", "wall_time", "run_timeout", "clockLimit"),
    "limits.compile.time": ("compile_timeout",),
    "limits.compile.memory": ("compile_memory_limit",),
    "memory": ("mem", "memory_limit", "ram"),
    "cpu_time": ("cpu", "cpu_time_limit"),
    "time": ("timeout", "wall_time", "time_limit", "wall"),
    "processes": ("procs", "threads", "max_processes", "pids"),
    "open_files": ("nofile", "max_open_files", "fds"),
    "file_size": ("max_file_size", "fsize"),
    "stack": ("stack_limit", "stack_size"),
    "nixpkgs": ("pin", "channel"),
}
NO_LANGUAGES = (
    "there are no languages: cutor.nix among the files names the packages, compile.sh compiles and run.sh runs"
)
LANGUAGES = ("language", "language_id", "lang", "compiler", "version", "runtime")
ENCODINGS = {"utf8": ("utf-8", "utf_8"), "base64": ("b64",), "hex": ("base16",)}
BYTES = re.compile(r"(?:.*\.)?(?:files\[\d+\]\.content|inputs|stdout)\b")  # the keys that may have an encoding
LONGEST_KEY = 40  # characters. For a longer key no similar one is looked for: to compare takes much memory
TWICE = object()  # the value of a key that stands twice in one object
LARGEST = 1 << 64  # above every whole number that is stored
KINDS: dict[type, str] = {bool: "true or false", str: "a text", list: "a list", dict: "an object", type(None): "null"}


Reader = Callable[[Any, str], Any]  # it gets a value and its path


def as_meant(value: Any, hint: Any, path: str = "") -> Any:
    """Return a JSON value in the form of ``hint``, a type of msgspec's. ``path`` is where the value stands.

    Raises :class:`ClientError` where nothing of that type can be meant.
    """
    return _reader(hint)(value, path)


@functools.cache
def _reader(hint: Any) -> Reader:
    """Return a function that reads values of a type. It is kept: making one takes longer than reading a request."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        fields = {field.name: (_reader(field.type), field.required) for field in msgspec.structs.fields(hint)}
        return partial(_struct, fields)
    parts = get_args(hint)

    def optional() -> Reader:
        of = [part for part in parts if part is not type(None)]
        return _reader(of[0]) if len(of) == 1 else partial(_truth_or_word, get_args(of[1]))

    readers: dict[Any, Callable[[], Reader]] = {
        Annotated: lambda: partial(_bounded, _reader(parts[0]), _bounds(parts[1:])),
        types.UnionType: optional,
        Union: optional,
        Literal: lambda: partial(_word, parts),
        list: lambda: partial(_list, _reader(parts[0])),
        dict: lambda: partial(_object, _reader(parts[1])),
    }
    made = readers.get(get_origin(hint))
    return made() if made else _PLAIN[hint]


def _bounds(notes: tuple[object, ...]) -> list[msgspec.Meta]:
    return [note for note in notes if isinstance(note, msgspec.Meta)]


def _list(read: Reader, value: Any, path: str) -> list[Any]:
    return [read(each, f"{path}[{at}]") for at, each in enumerate(_either(value, list, dict, path))]


def _object(read: Reader, value: Any, path: str) -> dict[str, Any]:
    """Read an object whose keys are the client's own. A key whose value is null counts as missing."""
    found = _either(value, dict, list, path)
    made = {}
    for key, each in found.items():
        below = f"{path}[{shown(_text(key, path))}]"
        _require_once(each, below)
        if each is not None:
            made[key] = read(each, below)
    return made


def _struct(fields: dict[str, tuple[Reader, bool]], value: Any, path: str) -> dict[str, Any]:
    found = _either(value, dict, list, path)
    made = {}
    named = f" ({shown(found['name'])})" if isinstance(found.get("name"), str) else ""
    for key, each in found.items():
        if key not in fields:
            raise ClientError(_unknown(key, path, fields))
        _require_once(each, _below(path, key))
        if each is not None:
            read, _ = fields[key]
            made[key] = read(each, _below(path, key) + (named if key != "name" else ""))
    for name, (_, required) in fields.items():
        if required and name not in made:
            raise ClientError(f"{_below(path, name)}: is missing; it has to be there")
    return made


def _require_once(value: object, path: str) -> None:
    if value is TWICE:
        raise ClientError(f"{path}: is there twice in one object")


def _unknown(key: str, path: str, fields: Iterable[str]) -> str:
    place = _below(path, shown(key)[1:-1] or "''")
    known = sorted(fields)
    plain = _plain(key)
    if not path and plain in map(_plain, LANGUAGES):
        return f"{place}: {NO_LANGUAGES}"
    ours = _meant(plain, path, known) or difflib.get_close_matches(plain, known, n=1)
    hint = f" Is {ours[0]} meant?" if ours else ""
    return f"{place}: there is no such key.{hint} There are {', '.join(known)}"


def _meant(plain: str, path: str, known: list[str]) -> list[str]:
    """Return those of our keys that a client may mean by a key with another service's word, or with other capitals."""
    ours = [each for each in known if _plain(each) == plain]
    return ours + [
        each
        for each, theirs in ELSEWHERE.items()
        if (each in known or ("." in each and path in ("", "limits"))) and plain in map(_plain, theirs)
    ]


def _plain(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "") if len(key) <= LONGEST_KEY else ""


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _either(value: Any, kind: type, empty: type, path: str) -> Any:
    """Return an object or a list. Some encoders write an empty one as the other."""
    if isinstance(value, kind):
        return value
    if path and isinstance(value, empty) and not value:
        return kind()
    raise ClientError(_wrong(value, KINDS[kind], path))


def _wrong(value: Any, wanted: str, path: str) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    given = "a number" if is_number else KINDS[type(value)]
    return f"{path or 'the request'}: {wanted} is needed, not {given}{instead(value, wanted, path)}"


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise ClientError(_wrong(value, "a text", path))
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError as error:
        base64 = "; send bytes as base64" if BYTES.match(path) else ""
        raise ClientError(f"{path}: {_no_text(value, error.start)}{base64}") from error
    return value


def _no_text(value: str, at: int) -> str:
    """Say which part of a text is no character. Bytes that are not UTF-8 stand there as PEP 383 has them."""
    if "\udc80" <= value[at] <= "\udcff":
        byte = ord(value[at]) - 0xDC00
        return f"byte {len(value[:at].encode())} (0x{byte:02x}) is not UTF-8"
    return f"character {at} is half of a surrogate pair, which is not text"


def _number(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ClientError(_wrong(value, "a number", path))
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ClientError(f"{path}: the number is too large")
    return number


def _whole(value: Any, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ClientError(_wrong(value, "a whole number", path))
    if abs(value) >= LARGEST:
        return LARGEST - 1 if value > 0 else 1 - LARGEST  # beyond all bounds: some clients write no limit like this
    if value != int(value):
        raise ClientError(f"{path}: a whole number is needed, not {value}")
    return int(value)


def _truth(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise ClientError(_wrong(value, "true or false", path))
    return value


_PLAIN: dict[Any, Reader] = {str: _text, float: _number, int: _whole, bool: _truth}


def _word(words: tuple[str, ...], value: Any, path: str, others: tuple[str, ...] = ()) -> str:
    """Read one of ``words``. A reason also lists ``others``, which may stand there and are no text."""
    if not isinstance(value, str):
        raise ClientError(_wrong(value, f"one of {', '.join(words)}", path))
    text = _text(value, path)
    plain = text.lower()
    for word in words:
        if text == word or (word in ENCODINGS and (plain == word or plain in ENCODINGS[word])):
            return word
    raise ClientError(f"{path}: there is no {shown(text)}; there are {', '.join((*others, *words))}")


def _truth_or_word(words: tuple[str, ...], value: Any, path: str) -> bool | str:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _word(words, value, path, ("true", "false"))
    raise ClientError(_wrong(value, f"true, false or {', '.join(words)}", path))


def _bounded(read: Reader, bounds: list[msgspec.Meta], value: Any, path: str) -> Any:
    made = read(value, path)
    for each in bounds:
        if each.gt is not None and not made > each.gt:
            raise ClientError(f"{path}: has to be more than {each.gt:g}")
        if (each.ge is not None and made < each.ge) or (each.le is not None and made > each.le):
            raise ClientError(f"{path}: has to be between {each.ge:g} and {each.le:g}")
    return made
