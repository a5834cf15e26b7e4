"""Rewriting a settings file with the names of today: line by line, so that comments and order stay.

A setting moves with the comment above it. What is written otherwise than one setting a line (an inline table) is left
to its owner: the caller compares what both files mean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

HEADER = re.compile(r"\s*\[(?P<table>[^\[\]]+)\]")


def rewritten(text: str, moved: Mapping[str, str]) -> str:
    """Return a TOML file in which settings have other names: ``moved`` maps ``table.name`` to ``table.name``."""
    kept: list[str] = []
    leaving: dict[str, list[str]] = {}  # lines, by the table that they go to
    table = ""
    for line in text.splitlines():
        if header := HEADER.match(line):
            table = header["table"].strip()
            kept.append(line)
            continue
        name, _, value = line.partition("=")
        mark, key = ("#", name.strip()[1:].strip()) if name.strip().startswith("#") else ("", name.strip())
        target = moved.get(f"{table}.{key}" if table else key) if value else None
        if target is None:
            kept.append(line)
        elif not table:
            kept.append(f"{mark}{target} ={value}")
        else:
            to, _, new = target.rpartition(".")
            leaving.setdefault(to, []).extend([*_comments_above(kept), f"{mark}{new} ={value}"])
    for to, lines in leaving.items():
        _insert(kept, to, lines)
    return "\n".join(kept) + "\n"


def _comments_above(kept: list[str]) -> list[str]:
    """Take the lines of text above a setting, which begin with "# "."""
    start = len(kept)
    while start and kept[start - 1].startswith("# "):
        start -= 1
    taken = kept[start:]
    del kept[start:]
    return taken


def _insert(kept: list[str], table: str, lines: list[str]) -> None:
    for number, line in enumerate(kept):
        header = HEADER.match(line)
        if header and header["table"].strip() == table:
            kept[number + 1 : number + 1] = lines
            return
    kept += ["", f"[{table}]", *lines]
