"""Lines and tables for people and pipes.

What goes to no terminal is neither folded nor cut, and has no colours: whoever reads it wants all of it. On a terminal
the last column of a table is cut where the line ends, and no other: names and versions are there to be copied. This is
no library's since a command that shows one response would start for longer than it takes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Self, TextIO

COLOURS = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}
LEAST = 8  # columns of one that is cut


class Text(str):
    """A text with a style, which is words of ``COLOURS``."""

    __slots__ = ("style",)
    style: str

    def __new__(cls, text: str, style: str = "") -> Self:
        """Make it."""
        made = super().__new__(cls, text)
        made.style = style
        return made

    def painted(self, shown: str) -> str:
        """Return ``shown``, which stands for this text, in its style."""
        codes = ";".join(COLOURS[word] for word in self.style.split())
        return f"\x1b[{codes}m{shown}\x1b[0m" if codes else shown


class Table:
    """Rows below headings; columns named in ``right`` have numbers."""

    def __init__(self, *headings: str, right: Iterable[str] = ()) -> None:
        self._headings = headings
        self._right = {headings.index(each) for each in right}
        self._rows: list[tuple[str, ...]] = []

    def add_row(self, *cells: str) -> None:
        """Add one more; a cell may be a :class:`Text`."""
        self._rows.append(cells)

    def lines(self, width: int | None = None, *, colours: bool = False) -> list[str]:
        """Return what is shown of it, in so many columns; None: as many as it takes."""
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
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    import unicodedata  # noqa: PLC0415 - it is large, and most texts are ASCII

    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return len(text) + wide - sum(unicodedata.combining(each) != 0 for each in text)


def cut(text: str, most: int) -> str:
    """Return a text that takes ``most`` columns at most."""
    if columns(text) <= most:
        return text
    kept = text[: most - 1]
    while columns(kept) > most - 1:
        kept = kept[:-1]
    return f"{kept}…"


def show(parts: Iterable[str | Table], stream: TextIO | None = None) -> None:
    """Print lines and tables to a stream, as it is one of a terminal or not."""
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
