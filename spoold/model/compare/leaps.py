"""Finds whole pieces of two outputs that are the same, without a look at each token.

Most right output is the same to the byte, except for blanks at the ends of lines. For such output, methods of ``bytes``
are many times as fast as the walk. The walk compares each piece that they do not prove right, so they need not know all
rules. A piece ends with a blank, or with a line where lines count, so it cuts no token.
"""

from __future__ import annotations

from spoold.model.compare.rules import Rules

LONGEST = 8 * 1024  # bytes of a piece. Every two bytes may be a token, which takes 30 times as much memory


def leap(expected: bytes, printed: bytes, at: tuple[int, int], stops: tuple[int, int], rules: Rules) -> tuple[int, int]:
    """Return how many bytes of each output are proven right in the next piece from ``at`` on, 0 where none are.

    Neither ``at`` nor the place behind these bytes is within a token.
    """
    if rules.by == "lines" and rules.space_change_sensitive and not rules.blank_lines_count:
        return 0, 0  # a piece may end before blanks that matter, or before blanks that do not
    ours = _piece(expected, at[0], stops[0], rules)
    if ours == printed[at[1] : min(at[1] + len(ours), stops[1])]:
        return len(ours), len(ours)
    theirs = _piece(printed, at[1], stops[1], rules)
    if not rules.case_sensitive:
        ours, theirs = ours.lower(), theirs.lower()
    if rules.by == "lines":
        return _of_lines(ours, theirs, rules)
    if rules.space_change_sensitive:
        return (len(ours), len(ours)) if ours == theirs else (0, 0)
    return _of_tokens(ours, theirs)


def _piece(text: bytes, start: int, stop: int, rules: Rules) -> bytes:
    piece = text[start : min(start + LONGEST, stop)]
    end = piece.rfind(b"\n")
    return piece[: 1 + (end if rules.by == "lines" else max(end, piece.rfind(b" ")))]


def _of_lines(ours: bytes, theirs: bytes, rules: Rules) -> tuple[int, int]:
    if not rules.blank_lines_count and (_returns(ours) or _returns(theirs)):
        return 0, 0
    many = min(ours.count(b"\n"), theirs.count(b"\n"))
    lines, size = _first(ours, many, b"\n")
    others, other_size = _first(theirs, many, b"\n")
    cut = bytes.rstrip if rules.space_change_sensitive else bytes.split
    same = all(cut(line) == cut(other) for line, other in zip(lines, others, strict=True))
    return (size, other_size) if same else (0, 0)


def _returns(piece: bytes) -> bool:
    """Tell whether a piece has a carriage return without a line feed behind it, which may end a line."""
    return piece.count(b"\r") != piece.count(b"\r\n")


def _of_tokens(ours: bytes, theirs: bytes) -> tuple[int, int]:
    tokens, others = ours.split(), theirs.split()
    many = min(len(tokens), len(others))
    if tokens[:many] != others[:many]:
        return 0, 0
    return _first(ours, many, None)[1], _first(theirs, many, None)[1]


def _first(piece: bytes, many: int, separator: bytes | None) -> tuple[list[bytes], int]:
    """Return the first ``many`` parts of a piece, and the offset at which the rest begins."""
    parts = piece.split(separator, many)
    rest = len(parts[many]) if len(parts) > many else 0
    return parts[:many], len(piece) - rest
