"""Formats: each stored object carries a number, which tells readers whether they can read the object.

Spec: spool-layout.md, "Formats". A stored object is read leniently: its reader ignores a key that it does not know. An
object whose number is above those that its reader knows is not read at all: :class:`NewerFormatError`. So versions of
spoold can work on one spool together, and no object of a newer version is taken for damage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

import msgspec

from spoold.model.errors import LeaseLostError, NewerFormatError

ENCODER = msgspec.json.Encoder()


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """An object in a file of ours. ``format`` is set when it is written, and is 1 where the file says none."""

    NEWEST: ClassVar[int] = 2  # this version writes this format, and reads those up to it
    format: int = 1


class _Number(msgspec.Struct):
    format: int = 1


AnyStored = TypeVar("AnyStored", bound=Stored)


def encode(thing: Stored) -> bytes:
    """Return the bytes of an object in the format that this version writes."""
    return ENCODER.encode(msgspec.structs.replace(thing, format=thing.NEWEST))


def decode(data: bytes, kind: type[AnyStored], path: str) -> AnyStored:
    """Return the object whose bytes are ``data``, read from ``path``.

    Raises :class:`NewerFormatError` where this version does not know its format, and :class:`msgspec.DecodeError` where
    it cannot be read.
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
    """Return the error of reading an object that a newer version wrote. None for any other, even if gone or damaged."""
    try:
        read()
    except NewerFormatError as error:
        return error
    except (LeaseLostError, msgspec.DecodeError):
        pass
    return None


def _number(data: bytes) -> int:
    """Return the format of an object whose other keys cannot be read."""
    try:
        return msgspec.json.decode(data, type=_Number).format
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 1
