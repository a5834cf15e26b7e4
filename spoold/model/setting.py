"""The meaning of a setting, written once beside its default. The manual page and the default settings file use it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec
from msgspec import Meta


def setting(
    description: str, unit: str = "", *, gt: float | None = None, ge: float | None = None, le: float | None = None
) -> Meta:
    """Annotate a field of the settings with its meaning (without a full stop), the unit and the bounds of its value."""
    if gt is not None:
        return Meta(description=description, extra={"unit": unit}, gt=gt, le=le)
    return Meta(description=description, extra={"unit": unit}, ge=ge, le=le)


CHOSEN = "NAME"  # in the path of a table, this stands for a name that the operator chooses


class Described(NamedTuple):
    """A setting: its table (``""`` for the top), its name, its meaning, its unit, its default, and its choices."""

    section: str
    name: str
    description: str
    unit: str
    default: object
    choices: tuple[str, ...] = ()


class Section(NamedTuple):
    """A table of the settings file, the text about it, and its settings."""

    path: str
    about: str
    settings: tuple[Described, ...]


def describe(defaults: msgspec.Struct, path: str = "") -> Iterator[Section]:
    """Yield the table of ``defaults``, then the tables in it, in the order of the manual and the default file.

    A table whose name the operator chooses comes once, as ``CHOSEN``.
    """
    about = inspect.getdoc(type(defaults)) or ""
    plain, tables = [], []
    for field, hint in typing.get_type_hints(type(defaults), include_extras=True).items():
        default = getattr(defaults, field)
        if isinstance(default, msgspec.Struct):
            tables.append((f"{path}.{field}".lstrip("."), default))
            continue
        base, *metas = typing.get_args(hint)
        if default == {} and isinstance(of := typing.get_args(base)[-1], type) and issubclass(of, msgspec.Struct):
            tables.append((f"{path}.{field}.{CHOSEN}".lstrip("."), of()))
            continue
        said = [meta for meta in metas if isinstance(meta, Meta) and meta.description]
        choices = typing.get_args(base) if typing.get_origin(base) is Literal else ()
        description, extra = said[0].description or "", said[0].extra or {}
        plain.append(Described(path, field, description, str(extra.get("unit", "")), default, choices))
    yield Section(path, about, tuple(plain))
    for name, table in tables:
        yield from describe(table, name)
