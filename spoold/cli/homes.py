"""Directories of a person's own files, as the XDG Base Directory Specification has them."""

from __future__ import annotations

import os

NOWHERE = "/nonexistent"  # the home of users who have none, by Debian's custom


def place(variable: str, default: str) -> str:
    """Return ``$variable`` if it is an absolute path, otherwise the path ``default`` in the home directory.

    An empty ``$HOME`` counts as none. Then the user's entry in passwd(5) tells. A user without an entry has no home.
    """
    named = os.environ.get(variable, "")
    return named if os.path.isabs(named) else os.path.join(_home(), default)


def _home() -> str:
    home = os.environ.get("HOME", "")
    if os.path.isabs(home):
        return home
    import pwd  # noqa: PLC0415 - most have $HOME

    try:
        return pwd.getpwuid(os.getuid()).pw_dir or NOWHERE
    except KeyError:
        return NOWHERE
