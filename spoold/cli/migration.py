"""Settings with former names: how they are reported, and how a file is rewritten."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from spoold.config.file import MOVED, decode, former_names
from spoold.host import fsops
from spoold.model.errors import OperatorError
from spoold.model.renaming import rewritten


def hint(file: str, found: list[str]) -> str:
    """Return a note on the settings in a file that have former names."""
    names = ", ".join(f"{old} is {MOVED[old]}" for old in found)
    return f"{file}: some settings were renamed ({names}): `spoolctl config --migrate` rewrites the file"


def told(file: str | None, changed: list[str]) -> str:
    """Return the report of a migration."""
    if file is None:
        return "there is no settings file: nothing to rewrite"
    lines = [f"{file}: {old} is {MOVED[old]} now" for old in changed]
    return "\n".join(lines) or f"{file}: all settings have their current names"


def migrate(file: str) -> list[str]:
    """Rewrite a settings file with the current names of settings. Return the former names that were in it.

    Raises :class:`OperatorError` where that has to be done by hand.
    """
    path = os.path.realpath(file)
    try:
        before = Path(path).read_bytes()
    except OSError as error:
        raise OperatorError(f"{file}: {error.strerror}") from error
    found = former_names(before)
    if not found:
        return []
    after = rewritten(before.decode(), MOVED).encode()
    if not _mean_the_same(before, after):
        names = ", ".join(f"{old} to {MOVED[old]}" for old in found)
        raise OperatorError(f"{file}: spoolctl cannot rewrite a file of this form: move {names} by hand")
    _replace(path, after)
    return found


def _mean_the_same(before: bytes, after: bytes) -> bool:
    """Tell whether the rewritten file has the same settings as before, under current names only."""
    try:
        return not former_names(after) and decode(after) == decode(before)
    except (msgspec.DecodeError, OperatorError):  # for example, a table is written in one line elsewhere
        return False


def _replace(path: str, data: bytes) -> None:
    seen, private = os.stat(path), f"{path}.new"
    try:
        fsops.write_private(private, data, mode=stat.S_IMODE(seen.st_mode))
        if (seen.st_uid, seen.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(private, seen.st_uid, seen.st_gid)
        fsops.replace(private, path)
    except OSError as error:
        raise OperatorError(f"{path} cannot be written: {error.strerror}") from error
