"""Text of strangers, as it stands in a page: escaped, bounded, and with what does not show made visible.

Control characters, those that turn the direction of a line, and lone surrogates stand there as escapes, such as
``\\u202e``. Words that are written from right to left turn nothing beside them: names are in ``bdi``, and the style
gives outputs a direction of their own.
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
LONGEST = 4  # bytes of a character of UTF-8


class Excerpt(NamedTuple):
    """HTML of the beginning of an output, and a note of how much more there is, "" where that is all."""

    html: str
    note: str


def plain(text: str, most: int = NAME) -> str:
    """Return the beginning of a text, visibly, but not as HTML."""
    return printable(text[:most]) + ("…" if len(text) > most else "")


def inline(text: str, most: int = NAME) -> str:
    """Return HTML of the beginning of a text, within a line of its own words."""
    return f"<bdi>{escaped(plain(text, most))}</bdi>"


def attribute(text: str) -> str:
    """Return the beginning of a text as it stands in an attribute, or where no markup is possible."""
    return escaped(plain(text))


def block(text: str, most: int = MESSAGE) -> str:
    """Return HTML of the beginning of a text of several lines: so long at most, and a mark where more is left out."""
    shown = text[:most]
    while len(html := escaped(printable(shown, lines=True))) > most:
        shown = shown[: len(shown) * most // len(html)]
    return html + ("…" if len(shown) < len(text) else "")


def excerpt(phase: Phase, stream: str, most: int) -> Excerpt:
    """Return the beginning of what a phase printed to ``stdout`` or ``stderr``: so many characters of HTML at most."""
    data = kept(phase, stream)
    text = data[: most * LONGEST].decode(errors="surrogateescape")[:most]
    text = "\n".join(text.split("\n", LINES)[:LINES])
    while len(html := escaped(printable(_visible(text), lines=True))) > most:
        text = text[: len(text) * most // len(html)]
    return Excerpt(html, _left_out(phase, stream, len(data), len(text.encode(errors="surrogateescape"))))


def _visible(text: str) -> str:
    """Return a text whose bytes that are no UTF-8, which stand in it as in PEP 383, are shown as ``\\xe9``."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def kept(phase: Phase, stream: str) -> bytes:
    """Return the bytes that were kept of what a phase printed."""
    try:
        return decoded(getattr(phase, stream), getattr(phase, f"{stream}_encoding"))
    except (AnswerError, UnicodeEncodeError):  # the file may be anybody's
        return str(getattr(phase, stream)).encode(errors="backslashreplace")


def _left_out(phase: Phase, stream: str, length: int, shown: int) -> str:
    total = getattr(phase, f"{stream}_bytes")
    notes = [f"{render.size(length - shown)} more in the response"] if shown < length else []
    if isinstance(total, int) and total > length:
        notes.append(f"{render.size(total - length)} more were printed, and not kept")
    return "; ".join(notes)
