"""Paths that a request may name: those of its files, and those of the files that are to come back.

Spec: spool-layout.md, "Files", "Returned files" and "Bounds".
"""

from __future__ import annotations

import unicodedata

from spoold.model.errors import ClientError
from spoold.model.outputs import MOST_PATTERNS, Output, check_pattern
from spoold.model.words import shown

MAX_PATH = 1024
MAX_COMPONENT = 255  # NAME_MAX
TOO_LONG = f"it may have {MAX_PATH} bytes at most, and {MAX_COMPONENT} between two slashes"
MAX_DEPTH = 32  # directories above a file


def check_outputs(outputs: list[Output], below: str = "") -> None:
    """Raise :class:`ClientError` where a request may not ask for these files. ``below`` stands before the key."""
    if len(outputs) > MOST_PATTERNS:
        raise ClientError(f"{below}outputs: {len(outputs)} patterns are more than the {MOST_PATTERNS} that are allowed")
    for index, output in enumerate(outputs):
        where = f"{below}outputs[{index}].path"
        check_pattern(checked_path(output.path, where), where)


def checked_path(name: str, where: str) -> str:
    """Return ``name`` if it is a relative path that stays below the work directory on any file system.

    Raises :class:`ClientError` that names ``where``, if it is not.
    """
    problem = ""
    if len(name) > MAX_PATH:  # to split it would take much memory
        raise ClientError(f"{where}: {shown(name)}: {TOO_LONG}")
    parts = name.removesuffix("/").split("/")
    if not name or any(part in ("", ".", "..") for part in parts):
        problem = "it must be a relative path without empty, '.' or '..' parts"
    elif len(name.encode()) > MAX_PATH or any(len(part.encode()) > MAX_COMPONENT for part in parts):
        problem = TOO_LONG
    elif len(parts) > MAX_DEPTH + 1:
        problem = f"it may lie at most {MAX_DEPTH} directories deep"
    elif any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name) or "\\" in name:
        problem = "control characters and backslashes are not allowed"
    elif any(part.startswith("-") for part in parts):
        problem = "no part may start with '-', which programs take for an option"
    if problem:
        raise ClientError(f"{where}: {shown(name)}: {problem}")
    return name
