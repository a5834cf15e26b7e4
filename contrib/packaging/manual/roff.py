"""Writes roff with the macros of man(7), and tables for tbl(1). Both groff and mandoc read it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

# Marks inside a line of text. Code becomes bold, and a link becomes its words.
INLINE = re.compile(
    r"(?P<ticks>``?)(?P<code>.+?)(?P=ticks)|\*\*(?P<bold>.+?)\*\*|\*(?P<italic>[^\s*](?:[^*]*[^\s*])?)\*"
    r"|\[(?P<link>[^\]]+)\]\([^)]+\)"
)
SPECIAL = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq"}
WIDTH = 78  # of lines of text in the source
LAST = 0x7E  # the last printable character of ASCII


def escaped(text: str) -> str:
    """Return plain text as roff."""
    return "".join(
        SPECIAL.get(character, character if ord(character) <= LAST else f"\\[u{ord(character):04X}]")
        for character in text
    )


def inline(text: str) -> str:
    """Return a text with Markdown's marks as roff, on one line."""
    text = " ".join(text.split())
    parts, end = [], 0
    for match in INLINE.finditer(text):
        parts.append(escaped(text[end : match.start()]))
        end = match.end()
        if match["code"]:
            parts.append(rf"\fB{escaped(match['code'])}\fR")
        elif match["bold"]:
            parts.append(rf"\fB{inline(match['bold'])}\fR")
        elif match["italic"]:
            parts.append(rf"\fI{inline(match['italic'])}\fR")
        else:
            parts.append(inline(match["link"]))
    return "".join([*parts, escaped(text[end:])])


def _safe(line: str) -> str:
    """Return the line so that roff does not take it for a request."""
    return rf"\&{line}" if line.startswith((".", r"\(aq")) else line


def _breakable(text: str) -> str:
    """Allow breaks in long names where their parts end, since a column of a table may be narrower than a name."""
    return re.sub(r"(?<=\w[/_=@])(?=[^\s/])|(?<=>)(?=[@.])|(?<=[a-z]{2})(?=[A-Z])", r"\\:", text)


class Page:
    """One page. Its texts may have Markdown's marks for parts of a line."""

    def __init__(self, name: str, section: int, *, date: str, version: str, about: str) -> None:
        self._lines = ["'\\\" t", f'.TH {name.upper()} {section} {date} "spoold {version}" "spoold"', ".nh"]
        self._opened = False  # whether a paragraph would be empty, after a heading
        self.heading("NAME")
        self._text(f"{escaped(name)} \\- {inline(about)}")

    def text(self) -> str:
        """Return the page."""
        return "\n".join(self._lines) + "\n"

    def heading(self, title: str) -> None:
        """Begin a section."""
        self._add(f'.SH "{escaped(title)}"')
        self._opened = True

    def subheading(self, title: str) -> None:
        """Begin a section in a section."""
        self._add(f'.SS "{inline(title)}"')
        self._opened = True

    def paragraph(self, text: str) -> None:
        """Add a paragraph."""
        self._break()
        self._text(inline(text))

    def item(self, tag: str, text: str) -> None:
        """Add an item: ``tag``, which is roff, and the text about it."""
        self._add(".TP", tag)
        self._text(inline(text))
        self._opened = False

    def bullet(self, text: str, mark: str = r"\(bu") -> None:
        """Add an item of a list."""
        self._add(f'.IP "{mark}" 3')
        self._text(inline(text))
        self._opened = False

    def code(self, lines: Iterable[str]) -> None:
        """Add lines as they are."""
        self._break()
        self._add(".RS 4", ".nf")
        for line in lines:
            self._add(_safe(escaped(line)) or r"\&")
        self._add(".fi", ".RE")
        self._opened = False

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Add a table. The first row is its head. The last column is the widest, and its words are filled."""
        head, *body = rows
        self._break()
        self._add(".TS", "allbox;", " ".join(["lb"] * len(head)), " ".join(["l"] * (len(head) - 1) + ["lx"]) + ".")
        self._add("\t".join(inline(cell) for cell in head))
        for row in body:
            self._add("\t".join(f"T{{\n.na\n{self._filled(_breakable(inline(cell)))}\nT}}" for cell in row))
        self._add(".TE")
        self._opened = False

    def usage(self, words: str) -> None:
        """Add how something is called."""
        self._break()
        self._text(words)

    def _break(self) -> None:
        if not self._opened:
            self._add(".PP")
        self._opened = False

    def _text(self, text: str) -> None:
        self._add(self._filled(text))

    def _filled(self, text: str) -> str:
        """Return roff that is to be filled, in short lines, which tools prefer."""
        lines = textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
        return "\n".join(map(_safe, lines)) or r"\&"

    def _add(self, *lines: str) -> None:
        self._lines.extend(lines)
