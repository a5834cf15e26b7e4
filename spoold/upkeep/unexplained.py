"""The verdict of the check about a file that no state of this version explains, and what a repair does about it.

Spec: spool-layout.md, "Check and repair".
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec

from spoold.host import fsops
from spoold.model import formats
from spoold.model.errors import NewerFormatError
from spoold.model.formats import Stored


class Action(StrEnum):
    """What a repair can do about a file."""

    QUARANTINE = "move to quarantine/"
    REMOVE = "remove"
    ANSWER = "answer with INTERNAL_ERROR"
    LET_IN = "write anew, for its owner to read"
    LEAVE = "leave"


class Verdict(NamedTuple):
    """Why a file is named, and what a repair does. ``format`` is set where a newer version wrote the file, else 0."""

    why: str
    action: Action
    format: int = 0


class Unexplained(msgspec.Struct, frozen=True):
    """A file, its ``path`` below the spool's root, that no state of this version explains. See :class:`Verdict`."""

    path: str
    why: str
    action: Action
    format: int = 0


def undecodable(path: str, kind: type[Stored]) -> Verdict | None:
    """Tell why a file of ours cannot be read, None where it can."""
    try:
        data = fsops.read(path)
        if data is not None:
            formats.decode(data, kind, path)
    except NewerFormatError as error:
        return left(error)
    except (msgspec.DecodeError, OSError) as error:
        return Verdict(f"cannot be read: {error}", Action.QUARANTINE)
    return None


def newer(path: str, kind: type[Stored]) -> Verdict | None:
    """Give the verdict on a file that a newer version wrote, None for any other file."""
    found = formats.newer(lambda: formats.decode(fsops.read(path) or b"", kind, path))
    return left(found) if found else None


def left(newer: NewerFormatError) -> Verdict:
    """Return the verdict on a file that a newer version wrote."""
    why = f"of a newer version of spoold (format {newer.format}): upgrade this version"
    return Verdict(why, Action.LEAVE, newer.format)
