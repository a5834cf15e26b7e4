"""Lines and tables for people and pipes.

Output that does not go to a terminal is not folded or cut, and has no colours, because its reader wants all of it. On a
terminal only the last column of a table is cut at the end of the line, so that names and versions can be copied. This
module replaces a library for tables, whose import takes longer than showing one response.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Self, TextIO

COLOURS = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}
LEAST = 8  # terminal columns that a column keeps when it is cut


class Text(str):
    """A text with a style, which consists of words from ``COLOURS``."""

    __slots__ = ("style",)
    style: str

    def __new__(cls, text: str, style: str = "") -> Self:
        """Make a text with a style."""
        made = super().__new__(cls, text)
        made.style = style
        return made

    def painted(self, shown: str) -> str:
        """Return ``shown``, a part of this text, in its style."""
        codes = ";".join(COLOURS[word] for word in self.style.split())
        return f"\x1b[{codes}m{shown}\x1b[0m" if codes else shown


class Table:
    """Rows below headings. The columns named in ``right`` are right-aligned, for numbers."""

    def __init__(self, *headings: str, right: Iterable[str] = ()) -> None:
        self._headings = headings
        self._right = {headings.index(each) for each in right}
        self._rows: list[tuple[str, ...]] = []

    def add_row(self, *cells: str) -> None:
        """Add a row. A cell may be a :class:`Text`."""
        self._rows.append(cells)

    def lines(self, width: int | None = None, *, colours: bool = False) -> list[str]:
        """Return the table as lines of at most ``width`` terminal columns; None sets no limit."""
        rows = [tuple(Text(each, "bold") for each in self._headings), *self._rows]
        widths = [max(columns(row[at]) for row in rows if at < len(row)) for at in range(len(self._headings))]
        if width is not None:
            before = sum(widths[:-1]) + 2 * (len(widths) - 1)
            widths[-1] = min(widths[-1], max(LEAST, width - before))
        return [self._line(row, widths, colours=colours) for row in rows]

    def _line(self, row: tuple[str, ...], widths: list[int], *, colours: bool) -> str:
        cells = []
        for at, cell in enumerate(row):
            shown = cut(cell, widths[at])
            blanks = " " * (widths[at] - columns(shown))
            painted = cell.painted(shown) if colours and isinstance(cell, Text) else shown
            cells.append(blanks + painted if at in self._right else painted + blanks)
        return "  ".join(cells).rstrip()


def columns(text: str) -> int:
    """Return how many terminal columns a text takes."""
    if text.isascii():
        return len(text)
    import unicodedata  # noqa: PLC0415 - it is large, and most texts are ASCII

    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return len(text) + wide - sum(unicodedata.combining(each) != 0 for each in text)


def cut(text: str, most: int) -> str:
    """Return a text that is cut to at most ``most`` terminal columns."""
    if columns(text) <= most:
        return text
    kept = text[: most - 1]
    while columns(kept) > most - 1:
        kept = kept[:-1]
    return f"{kept}…"


def show(parts: Iterable[str | Table], stream: TextIO | None = None) -> None:
    """Print lines and tables to a stream. They depend on whether the stream is a terminal."""
    stream = stream or sys.stdout
    terminal = stream.isatty()
    colours = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    width = os.get_terminal_size(stream.fileno()).columns or None if terminal else None
    for part in parts:
        if isinstance(part, Table):
            lines = part.lines(width, colours=colours)
        else:
            lines = [part.painted(part) if colours and isinstance(part, Text) else part]
        for line in lines:
            stream.write(line.encode(stream.encoding or "utf-8", "backslashreplace").decode(stream.encoding or "utf-8"))
            stream.write("\n")
