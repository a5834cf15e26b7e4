"""Reads the parts of Markdown that our own documents use: headings, paragraphs, lists, tables and code."""

from __future__ import annotations

import re
from collections.abc import Callable

from manual.roff import Page

ITEM = re.compile(r"(\*|\d+\.) +(.*)")


def add(page: Page, text: str) -> None:
    """Add a document to a page. ``##`` begins a section, ``###`` a section in it. The title above is left out."""
    blocks = text.splitlines()
    while blocks:
        line = blocks[0]
        if line.startswith("```"):
            end = blocks.index("```", 1)
            page.code(blocks[1:end])
            del blocks[: end + 1]
        elif line.startswith("#"):
            _heading(page, blocks.pop(0))
        elif line.startswith("|"):
            rows = _while(blocks, lambda each: each.startswith("|"))
            page.table([_cells(row) for row in rows if not set(row) <= set("|-: ")])
        elif match := ITEM.fullmatch(line):
            blocks.pop(0)
            more = _while(blocks, lambda each: each.startswith("  ") and not ITEM.fullmatch(each))
            mark = r"\(bu" if match[1] == "*" else match[1]
            page.bullet(" ".join([match[2], *more]), mark)
        elif line.strip():
            page.paragraph(" ".join(_while(blocks, lambda each: bool(each.strip()) and not _begins(each))))
        else:
            blocks.pop(0)


def _begins(line: str) -> bool:
    """Tell whether a line ends the paragraph before it."""
    return line.startswith(("#", "|", "```")) or bool(ITEM.fullmatch(line))


def _while(lines: list[str], belongs: Callable[[str], bool]) -> list[str]:
    found = []
    while lines and belongs(lines[0]):
        found.append(lines.pop(0))
    return found


def _heading(page: Page, line: str) -> None:
    marks, _, title = line.partition(" ")
    if len(marks) == 2:
        page.heading(title.upper())
    elif len(marks) > 2:
        page.subheading(title)


def _cells(row: str) -> list[str]:
    """Return the cells of a row; a bar inside a cell is escaped."""
    return [cell.replace(r"\|", "|").strip() for cell in re.split(r"(?<!\\)\|", row.strip())[1:-1]]
