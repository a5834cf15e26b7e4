"""Shows a client where two outputs differ, with a printable excerpt of both.

Spec: spool-layout.md, "When output is right".
"""

from __future__ import annotations

import codecs

import msgspec

MOST = 100  # bytes of an output that are shown
BEFORE = 20  # how many of these bytes may stand before the first that differs
CUT = "..."


class Difference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The place where an output first differs: its line, the byte in that line (both from 1), and both excerpts.

    An excerpt shows at most 100 bytes of the output as printable text. All other bytes are in escapes, such as ``\\n``
    and ``\\xff``. ``expected`` is None where nothing more is expected, ``printed`` where the output ends.
    """

    line: int
    column: int
    expected: str | None = None
    printed: str | None = None

    def __str__(self) -> str:
        place = f"line {self.line}, column {self.column}: "
        if self.expected is None:
            return f'{place}the output should end here, but "{self.printed}" was printed'
        if self.printed is None:
            return f'{place}"{self.expected}" is expected, but the output ends'
        return f'{place}"{self.expected}" is expected, but "{self.printed}" was printed'


def difference(
    expected: bytes, wanted: tuple[int, int], printed: bytes, found: tuple[int, int], alike: int
) -> Difference:
    """Return the difference of the stretches ``wanted`` and ``found``, whose first ``alike`` bytes agree.

    ``wanted`` goes from one offset of ``expected`` to another, and ``found`` does the same in ``printed``.
    """
    skipped = _start_of_character(expected, wanted[0], alike - BEFORE) if alike > MOST // 2 else 0
    at, here = wanted[0] + skipped, found[0] + skipped
    return Difference(
        line=printed.count(b"\n", 0, here) + 1,
        column=here - printed.rfind(b"\n", 0, here),
        expected=excerpt(expected, at, wanted[1], CUT if skipped else ""),
        printed=excerpt(printed, here, found[1], CUT if skipped else ""),
    )


def _start_of_character(text: bytes, start: int, skipped: int) -> int:
    """Return ``skipped``, moved back to the start of a UTF-8 character that it would cut: by three bytes at most."""
    within = 0
    while within < 3 and text[start + skipped - within] & 0xC0 == 0x80:
        within += 1
    return skipped - within


def excerpt(text: bytes, start: int, stop: int, before: str = "") -> str | None:
    """Return the first bytes between two offsets as printable text, behind ``before``. None where there are none."""
    if start == stop and not before:
        return None
    ended = stop - start <= MOST
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    kept = decoder.decode(text[start : min(stop, start + MOST)], final=ended)
    return before + "".join(map(_printable, kept)) + ("" if ended else CUT)


def _printable(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # PEP 383: this character stands for a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character in '\\"':
        return "\\" + character
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
