"""Formats: what is stored carries a number, and whoever reads it tells by that whether it is theirs to read.

Spec: spool-layout.md, "Formats". A stored object is read leniently: a key that its reader does not know is ignored. One
whose number is above what its reader knows is not read at all: :class:`NewerFormatError`. So versions of spoold can
work on one spool together, and nothing of a newer one is taken for damage.

A request is read strictly. :func:`strict` makes a twin of its type that refuses unknown keys, so that both readings
have one definition.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from types import UnionType
from typing import Any, ClassVar, TypeVar, cast, get_args, get_origin

import msgspec

from spoold.model.errors import LeaseLostError, NewerFormatError

ENCODER = msgspec.json.Encoder()


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """An object in a file of ours; ``format`` is set when it is written, and 1 where the file says none."""

    NEWEST: ClassVar[int] = 2  # which this version writes, and up to which it reads
    format: int = 1


class _Number(msgspec.Struct):
    format: int = 1


AnyStored = TypeVar("AnyStored", bound=Stored)
AnyStruct = TypeVar("AnyStruct", bound=msgspec.Struct)


def encode(thing: Stored) -> bytes:
    """Return the bytes of an object in the format that this version writes."""
    return ENCODER.encode(msgspec.structs.replace(thing, format=thing.NEWEST))


def decode(data: bytes, kind: type[AnyStored], path: str) -> AnyStored:
    """Read the object that lies at ``path``.

    Raises :class:`NewerFormatError` where it is of a format that this version does not know, and
    :class:`msgspec.DecodeError` where it cannot be read.
    """
    try:
        found = msgspec.json.decode(data, type=kind)
        number = found.format
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        number = _number(data)
        if number <= kind.NEWEST:
            raise error if isinstance(error, msgspec.DecodeError) else msgspec.DecodeError(str(error)) from error
    if number > kind.NEWEST:
        raise NewerFormatError(path, number, kind.NEWEST)
    return found


def newer(read: Callable[[], object]) -> NewerFormatError | None:
    """Return what is said of an object that a newer version wrote, None of any other, be it gone or damaged."""
    try:
        read()
    except NewerFormatError as error:
        return error
    except (LeaseLostError, msgspec.DecodeError):
        pass
    return None


def _number(data: bytes) -> int:
    """Return the format of an object of which nothing else can be read."""
    try:
        return msgspec.json.decode(data, type=_Number).format
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 1


def strict(kind: type[AnyStruct]) -> type[AnyStruct]:
    """Return a twin of a type that takes no key that it does not know, and neither do the structs in it."""
    twins = [
        (field.name, twin, _default(field))
        for field in msgspec.structs.fields(kind)
        if (twin := _strict_hint(field.type)) != field.type
    ]
    options: dict[str, Any] = {"frozen": True, "kw_only": True, "forbid_unknown_fields": True}
    return cast("type[AnyStruct]", msgspec.defstruct(kind.__name__, twins, bases=(kind,), **options))


def _default(field: msgspec.structs.FieldInfo) -> Any:
    made = field.default_factory
    return field.default if made is msgspec.NODEFAULT else msgspec.field(default_factory=made)


def _strict_hint(hint: Any) -> Any:
    parts = get_args(hint)
    if not parts:
        return strict(hint) if isinstance(hint, type) and issubclass(hint, msgspec.Struct) else hint
    twins = tuple(map(_strict_hint, parts))
    if twins == parts:
        return hint
    return functools.reduce(operator.or_, twins) if isinstance(hint, UnionType) else get_origin(hint)[twins]
