"""Text for a terminal. Apart from ``render``, so that daemons need no library for tables."""

from __future__ import annotations

import unicodedata


def printable(text: str, *, lines: bool = False) -> str:
    """Return ``text`` with control and format characters escaped; newlines and tabs stay where ``lines`` is set."""
    kept = "\n\t" if lines else ""
    return "".join(
        character
        if character in kept or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
