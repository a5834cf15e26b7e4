"""Formats: what is stored carries a number, and whoever reads it tells by that whether it is theirs to read.

Spec: spool-layout.md, "Formats". A stored object is read leniently: a key that its reader does not know is ignored. One
whose number is above what its reader knows is not read at all: :class:`NewerFormatError`. So versions of spoold can
work on one spool together, and nothing of a newer one is taken for damage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

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
