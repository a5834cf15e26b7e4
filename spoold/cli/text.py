"""Text for a terminal. It is apart from ``render``, so that the daemons do not import a library for tables."""

from __future__ import annotations


def printable(text: str, *, lines: bool = False) -> str:
    """Return ``text`` with control and format characters escaped. ``lines`` keeps newlines and tabs.

    A byte of a name that is not UTF-8 appears like ``\\xe9``.
    """
    kept = "\n\t" if lines else ""
    is_shown = str.isprintable if text.isascii() else _is_shown
    return "".join(each if each in kept or is_shown(each) else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # PEP 383: it stands for a byte
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def _is_shown(character: str) -> bool:
    import unicodedata  # noqa: PLC0415 - it is large, and most texts are ASCII

    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def readable(data: bytes) -> str:
    """Return the bytes of a program as readable text. Other bytes and control characters appear like ``\\xe9``.

    If most of the bytes are not text, return only a note with their number.
    """
    text = data.decode(errors="backslashreplace")
    shown = printable(text, lines=True)
    odd = len(shown) - len(data.decode(errors="ignore"))
    if "\0" in text and odd > len(data) // 2:
        return f"({len(data)} bytes that are not text: --raw writes them)"
    return shown
