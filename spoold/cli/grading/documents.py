"""YAML files of problem packages. They are strangers' files: each is read safely, and the type of each key is checked.

The YAML library is imported only when a package is read, because nothing else needs it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from spoold.cli.grading.cases import content
from spoold.cli.text import printable
from spoold.model.errors import ClientError, OperatorError

MOST = 1 << 20  # bytes of a file
MOST_PARTS = 100_000  # keys and values; a part that aliases repeat counts each time
CONSTANT = re.compile(r"\{\{([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)?)\}\}")


class Document:
    """A map in a YAML file. ``where`` names the file, and the keys that lead to the map."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = values
        self.where = where

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def wrong(self, key: str, why: str) -> ClientError:
        """Return an error that names a key."""
        return ClientError(f"{self.where}: {printable(key)}: {why}")

    def unknown(self, known: Collection[str]) -> list[str]:
        """Return a text for each key that is not ``known``. It names the file and the key."""
        return [f"{self.where}: {printable(key)}" for key in self.values if key not in known]

    def text(self, key: str, default: str = "") -> str:
        """Return a text. A number is accepted as one."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise self.wrong(key, "it has to be a string")
        return str(value)

    def number(self, key: str, default: float, *, least: float = 0.0) -> float:
        """Return a number. ``1e-6`` is accepted, although YAML 1.1 reads it as a text."""
        value = self.values.get(key)
        if value is None:
            return default
        try:
            number = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not least <= number < math.inf:
            raise self.wrong(key, f"it has to be a number of at least {least:g}")
        return number

    def map(self, key: str) -> Document:
        """Return a map, or an empty one where the key is missing."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(key, "it has to be a map")
        return Document(_named(value or {}), f"{self.where}: {printable(key)}")

    def words(self, key: str) -> list[str] | None:
        """Return words, given as a list of texts or as one text with blanks; None where the key is missing."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, dict) and "flags" in value:  # in the older format the map also names a validator
            value = value["flags"]
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return str(value).split()
        if not isinstance(value, list) or not all(isinstance(each, (str, int, float)) for each in value):
            raise self.wrong(key, "it has to be a list of strings")
        return [str(each) for each in value]


def with_constants(text: str, constants: Mapping[str, str]) -> str:
    """Return a text with each ``{{name}}`` of a constant replaced by its value."""
    return CONSTANT.sub(lambda match: constants.get(match[1], match[0]), text)


def read(path: str, constants: Mapping[str, str] | None = None) -> Document:
    """Return the map in a file. Raises :class:`ClientError` where the file is not a map in YAML."""
    where = printable(path)
    data = content(path)
    if len(data) > MOST:
        raise ClientError(f"{where}: it is larger than {MOST >> 20} MiB")
    if constants:
        data = with_constants(data.decode(errors="surrogateescape"), constants).encode(errors="surrogateescape")
    found = _parsed(data, where)
    if found is None:
        return Document({}, where)
    if not isinstance(found, dict):
        raise ClientError(f"{where}: it has to be a map of keys and values")
    _require_small(found, where)
    return Document(_named(found), where)


def read_if_there(path: str, constants: Mapping[str, str] | None = None) -> Document | None:
    """Return the map in a file; None where there is no such file."""
    return read(path, constants) if os.path.lexists(path) else None


def _parsed(data: bytes, where: str) -> Any:
    try:
        import yaml  # noqa: PLC0415 - see above
    except ImportError as error:
        raise OperatorError("problem packages need PyYAML: install python3-yaml, or `pip install pyyaml`") from error
    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError) as error:
        # An invalid date raises ValueError, and too deep nesting raises RecursionError.
        said = " ".join(str(error).split()) or "it nests too deeply"
        raise ClientError(f"{where}: it is no YAML: {printable(said)[:300]}") from error


def _require_small(found: Any, where: str) -> None:
    """Raise :class:`ClientError` for a file that is much larger than it looks, because aliases repeat parts of it."""
    todo, count = [found], 0
    while todo:
        count += 1
        if count > MOST_PARTS:
            raise ClientError(f"{where}: it has more than {MOST_PARTS} keys and values")
        one = todo.pop()
        if isinstance(one, Mapping):
            todo.extend(one.values())
        elif isinstance(one, Sequence) and not isinstance(one, (str, bytes)):
            todo.extend(one)


def _named(values: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in values.items()}
