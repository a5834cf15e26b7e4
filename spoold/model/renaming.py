"""Rewrites a settings file with the names of today: line by line, so that comments and order stay.

A setting moves with the comment above it. A setting that is not one line (an inline table, a string of several lines)
is left to its owner. The caller compares what both files mean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

HEADER = re.compile(r"\s*\[(?P<table>[^\[\]]+)\]")
SETTING = re.compile(r"\s*(?P<mark>#?\s*)(?P<name>[A-Za-z_][A-Za-z0-9_.]*)(?P<value>\s*=.*)")


def rewritten(text: str, moved: Mapping[str, str]) -> str:
    """Return a TOML file in which settings have other names: ``moved`` maps ``table.name`` to ``table.name``."""
    end = "\r\n" if "\r\n" in text else "\n"  # not splitlines(), which also splits within a string of one line
    kept: list[str] = []
    leaving: dict[str, list[str]] = {}  # lines by the table that they go to
    table = ""
    for line in text.removesuffix(end).split(end):
        if header := HEADER.match(line):
            table = header["table"].strip()
            kept.append(line)
            continue
        setting = _setting(line)
        target = moved.get(f"{table}.{setting['name']}" if table else setting["name"]) if setting else None
        if setting is None or target is None:
            kept.append(line)
        elif not table:
            kept.append(f"{setting['mark']}{target}{setting['value']}")
        else:
            to, _, new = target.rpartition(".")
            leaving.setdefault(to, []).extend([*_comments_above(kept), f"{setting['mark']}{new}{setting['value']}"])
    for to, lines in leaving.items():
        _insert(kept, to, lines)
    return end.join(kept) + end


def _setting(line: str) -> re.Match[str] | None:
    """Return the parts of a line that is one setting, also one that is commented out. None for any other line."""
    found = SETTING.fullmatch(line)
    if found is None:
        return None
    try:
        msgspec.toml.decode(found["name"] + found["value"])
    except msgspec.DecodeError:  # the value goes on in the next line, or the line is a sentence with a "="
        return None
    return found


def _comments_above(kept: list[str]) -> list[str]:
    """Take the lines of text above a setting. A setting that is commented out there is no text."""
    start = len(kept)
    while start and kept[start - 1].lstrip().startswith("#") and not _setting(kept[start - 1]):
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
