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


def readable(data: bytes) -> str:
    """Return bytes of a program as a person reads them: a byte that is no text as ``\\xe9``, and so with control.

    Where most are no text, it is said how many there are.
    """
    text = data.decode(errors="backslashreplace")
    shown = printable(text, lines=True)
    odd = len(shown) - len(data.decode(errors="ignore"))
    if "\0" in text and odd > len(data) // 2:
        return f"({len(data)} bytes that are no text: --raw writes them)"
    return shown
