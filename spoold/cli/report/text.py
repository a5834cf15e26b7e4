"""Strangers' text in a page: escaped and bounded, with invisible characters made visible.

Control characters, characters that change the direction of a line, and lone surrogates appear as escapes, such as
``\\u202e``. Text that is written from right to left does not affect the text beside it: names are in ``bdi``, and the
style gives outputs a direction of their own.
"""

from __future__ import annotations

from typing import NamedTuple

from spoold.cli import render
from spoold.cli.text import printable
from spoold.client.errors import AnswerError
from spoold.client.response import Phase, decoded
from spoold.model.page import escaped

NAME, MESSAGE = 200, 1000  # characters of a name and of a message that are shown
LINES = 60  # of an output
LONGEST = 4  # bytes of a character in UTF-8


class Excerpt(NamedTuple):
    """HTML of the beginning of an output, and a note on how much is left out, "" where nothing is."""

    html: str
    note: str


def plain(text: str, most: int = NAME) -> str:
    """Return the beginning of a text as plain text, not HTML, with invisible characters escaped."""
    return printable(text[:most]) + ("…" if len(text) > most else "")


def inline(text: str, most: int = NAME) -> str:
    """Return HTML of the beginning of a text, for use within a line."""
    return f"<bdi>{escaped(plain(text, most))}</bdi>"


def attribute(text: str) -> str:
    """Return the beginning of a text for an attribute, or for a place where no markup is possible."""
    return escaped(plain(text))


def block(text: str, most: int = MESSAGE) -> str:
    """Return at most ``most`` characters of HTML from the beginning of a text of several lines. "…" marks a cut."""
    shown = text[:most]
    while len(html := escaped(printable(shown, lines=True))) > most:
        shown = shown[: len(shown) * most // len(html)]
    return html + ("…" if len(shown) < len(text) else "")


def excerpt(phase: Phase, stream: str, most: int) -> Excerpt:
    """Return at most ``most`` characters of HTML from the beginning of an output, ``stdout`` or ``stderr``."""
    data = kept(phase, stream)
    text = data[: most * LONGEST].decode(errors="surrogateescape")[:most]
    text = "\n".join(text.split("\n", LINES)[:LINES])
    while len(html := escaped(printable(_visible(text), lines=True))) > most:
        text = text[: len(text) * most // len(html)]
    return Excerpt(html, _left_out(phase, stream, len(data), len(text.encode(errors="surrogateescape"))))


def _visible(text: str) -> str:
    """Return a text in which bytes that are not UTF-8 (surrogates by PEP 383) are shown as ``\\xe9``."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def kept(phase: Phase, stream: str) -> bytes:
    """Return the bytes of an output that were kept."""
    try:
        return decoded(getattr(phase, stream), getattr(phase, f"{stream}_encoding"))
    except (AnswerError, UnicodeEncodeError):  # the file may be anybody's
        return str(getattr(phase, stream)).encode(errors="backslashreplace")


def _left_out(phase: Phase, stream: str, length: int, shown: int) -> str:
    total = getattr(phase, f"{stream}_bytes")
    notes = [f"{render.size(length - shown)} more in the response"] if shown < length else []
    if isinstance(total, int) and total > length:
        notes.append(f"{render.size(total - length)} more were printed but not kept")
    return "; ".join(notes)
