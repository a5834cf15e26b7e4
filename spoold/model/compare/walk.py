"""Finds the first place where two outputs differ by given rules.

Spec: spool-layout.md, "When output is right". Both outputs are bytes, which need not be text. The walk reads each as
units: a **gap**, which is a run of blanks, and the **token** behind it. Rules differ in which gaps are the same, in
which tokens are the same, and in whether blanks at the very ends count. So one walk over both outputs, unit by unit,
serves all rules. It leaps over whole pieces that are the same. Its time is in proportion to the length of the expected
output, and to the number of blanks that are printed in between. At most ``PIECE`` bytes of each output are copied at
once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

from spoold.model.compare.excerpts import Difference, difference
from spoold.model.compare.leaps import LONGEST, leap
from spoold.model.compare.numerals import number
from spoold.model.compare.rules import Rules
from spoold.model.compare.stretches import PIECE, agreement, end_without

BLANKS = b" \t\n\v\f\r"
UNIT = re.compile(rb"([ \t-\r]*+)[^ \t-\r]*+")
UNIT_WITH_NUL = re.compile(rb"([\0 \t-\r]*+)[^\0 \t-\r]*+")  # where NUL is a blank

Stretch = tuple[int, int]  # from one offset to another


def first_difference(expected: bytes, printed: bytes, rules: Rules) -> Difference | None:
    """Return the first place where ``printed`` breaks the rules. None where all of it is right."""
    return None if expected == printed else _Walk(expected, printed, rules).first_difference()


class _Walk:
    """The walk over the expected and the printed output. Positions are offsets into these two."""

    def __init__(self, expected: bytes, printed: bytes, rules: Rules) -> None:
        self._expected, self._printed, self._rules = expected, printed, rules
        with_nul = rules.nul_is_blank and rules.by == "lines"
        self._blanks = BLANKS + b"\0" if with_nul else BLANKS
        # Both patterns match everywhere, if only the empty string.
        self._unit = cast("Callable[[bytes, int, int], re.Match[bytes]]", (UNIT_WITH_NUL if with_nul else UNIT).match)
        self._all_blanks_count = rules.by != "lines" and rules.space_change_sensitive
        self._first_blanks_count = self._all_blanks_count or (rules.by == "lines" and rules.blank_lines_count)
        self._stop, self._end = self._end_of(expected), self._end_of(printed)

    def _end_of(self, text: bytes) -> int:
        return len(text) if self._all_blanks_count else end_without(self._blanks, text, len(text))

    def first_difference(self) -> Difference | None:
        expected, printed, unit, stop, end = self._expected, self._printed, self._unit, self._stop, self._end
        at, here = self._past_blanks(0, 0)
        again = at  # the next leap is tried from here on
        while at < stop and here < end:
            if at >= again:
                ours, theirs = leap(expected, printed, (at, here), (stop, end), self._rules)
                if ours:
                    at, here = self._past_blanks(at + ours, here + theirs)
                    continue
                again = at + LONGEST
            wanted, found = unit(expected, at, stop), unit(printed, here, end)
            past, behind = wanted.end(), found.end()
            size = past - at
            if size > PIECE or size != behind - here or expected[at:past] != printed[here:behind]:
                token, other = wanted.end(1), found.end(1)
                if not self._same_gap((at, token), (here, other)):
                    break
                if not self._same_token((token, past), (other, behind)):
                    break
            at, here = past, behind
        return self._told(at, here) if at < stop or here < end else None

    def _past_blanks(self, at: int, here: int) -> Stretch:
        """Return where to go on after the start or a leap: at the next tokens, if blanks before them do not count."""
        if self._first_blanks_count:
            return at, here
        return self._unit(self._expected, at, self._stop).end(1), self._unit(self._printed, here, self._end).end(1)

    def _same_gap(self, gap: Stretch, other: Stretch) -> bool:
        if self._same_text(gap, other):
            return True
        if self._rules.by != "lines":
            return not self._rules.space_change_sensitive
        many, as_many = self._line_ends(self._expected, gap), self._line_ends(self._printed, other)
        if many != as_many or not self._rules.space_change_sensitive:
            return many == as_many
        return self._same_text(self._last_line(self._expected, gap), self._last_line(self._printed, other))

    def _line_ends(self, text: bytes, gap: Stretch) -> int:
        """Return how many line ends of a gap count: all of them, or at most one where blank lines do not count."""
        if self._rules.blank_lines_count:
            return text.count(b"\n", *gap)
        return int(any(text.find(end, *gap) >= 0 for end in self._rules.line_ends))

    def _last_line(self, text: bytes, gap: Stretch) -> Stretch:
        """Return the blanks of a gap that are on the line of the token behind it."""
        last = max(text.rfind(end, *gap) for end in self._rules.line_ends)
        return max(gap[0], last + 1), gap[1]

    def _same_token(self, token: Stretch, other: Stretch) -> bool:
        absolute, relative = self._rules.float_absolute, self._rules.float_relative
        if absolute is None and relative is None:
            return self._same_text(token, other)
        wanted = number(self._expected, *token)
        found = None if wanted is None else number(self._printed, *other)
        if wanted is None or found is None:
            return self._same_text(token, other)
        off = abs(wanted - found)
        return (absolute is not None and off <= absolute) or (relative is not None and off <= relative * abs(wanted))

    def _same_text(self, text: Stretch, other: Stretch) -> bool:
        size = text[1] - text[0]
        if size != other[1] - other[0]:
            return False
        if size > PIECE:
            return self._alike(text[0], other[0], size) == size
        ours, theirs = self._expected[text[0] : text[1]], self._printed[other[0] : other[1]]
        return ours == theirs or (not self._rules.case_sensitive and ours.lower() == theirs.lower())

    def _alike(self, at: int, here: int, most: int) -> int:
        fold = not self._rules.case_sensitive
        return agreement(self._expected, at, self._printed, here, most, fold=fold)

    def _told(self, at: int, here: int) -> Difference:
        """Return the difference of the next two units: of their tokens, and of the gaps before them if those differ."""
        at, here = end_without(self._blanks, self._expected, at), end_without(self._blanks, self._printed, here)
        wanted, found = self._unit(self._expected, at, self._stop), self._unit(self._printed, here, self._end)
        ended = at == self._stop or here == self._end
        gaps_count = self._all_blanks_count or not (ended or (at == 0 and not self._first_blanks_count))
        if not gaps_count or self._same_gap(wanted.span(1), found.span(1)):
            at, here = wanted.end(1), found.end(1)
        alike = self._alike(at, here, min(wanted.end() - at, found.end() - here))
        return difference(self._expected, (at, wanted.end()), self._printed, (here, found.end()), alike)
