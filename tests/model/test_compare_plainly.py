"""The comparison agrees with a slow and plain program that follows the spec's words, whatever the outputs are."""

from __future__ import annotations

import math
import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoold.model.compare import leaps, stretches, walk
from spoold.model.compare.excerpts import Difference
from spoold.model.compare.rules import DEFAULT, LIKE, Rules
from spoold.model.compare.walk import first_difference

BLANKS = b" \t\n\v\f\r"
WORDS = [b"a", b"b", b"A", b"yes", b"YES", b"1", b"1.0", b"1.01", b"-1", b"1e0", b"100", b"101", b"\xff", b"\xc3\xa9"]
ODD = [b"\x85", b"\xa0", b"\x1c", b"\0", b"1_0", b"inf", b"1e400"]
GAPS = [b" ", b"  ", b"\n", b"\n\n", b"\r\n", b"\r", b"\t", b"\v", b"\f", b" \n", b"\n "]
PARTS = st.sampled_from([*WORDS, *ODD, *GAPS, *GAPS])
TOLERANCES = st.none() | st.sampled_from([0.0, 0.001, 0.015, 1.0, 1000.0])
EVERY_RULE = st.builds(
    lambda named, absolute, relative, **said: msgspec.structs.replace(
        named, float_absolute=absolute, float_relative=relative, **said
    ),
    st.sampled_from([*DEFAULT.values(), *LIKE.values()]),
    TOLERANCES,
    TOLERANCES,
    case_sensitive=st.booleans(),
    space_change_sensitive=st.booleans(),
).map(lambda rules: msgspec.structs.replace(rules, space_change_sensitive=True) if rules.by == "exact" else rules)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Draw an output, and a copy with a few other parts, most of them blanks."""
    parts = draw(st.lists(PARTS, max_size=20))
    changed = list(parts)
    for at, part in draw(st.lists(st.tuples(st.integers(0, 20), PARTS | st.sampled_from(GAPS)), max_size=3)):
        changed[at : at + draw(st.integers(0, 1))] = [part]
    if draw(st.booleans()):
        changed = [part.replace(b"\n", b" \r\n") for part in changed]
    return b"".join(parts), b"".join(changed)


def plain_lines(text: bytes, rules: Rules) -> list[list[bytes]]:
    blanks = BLANKS + b"\0" * rules.nul_is_blank
    lines = [line.rstrip(blanks) for line in re.split(b"|".join(rules.line_ends), text)]
    if not rules.blank_lines_count:
        lines = [line for line in lines if line]
        lines[:1] = [line.lstrip(blanks) for line in lines[:1]]
    while lines and not lines[-1]:
        lines.pop()
    return [plain_tokens(line, blanks, all_blanks=rules.space_change_sensitive) for line in lines]


def plain_tokens(text: bytes, blanks: bytes, *, all_blanks: bool) -> list[bytes]:
    parts = [part for part in re.split(b"([" + re.escape(blanks) + b"]+)", text) if part]
    return parts if all_blanks else [part for part in parts if part.strip(blanks)]


def plain_number(token: bytes) -> float | None:
    if not re.fullmatch(rb"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", token):
        return None
    return float(token) if math.isfinite(float(token)) else None


def plain_same(wanted: bytes, found: bytes, rules: Rules) -> bool:
    tolerances = rules.float_absolute, rules.float_relative
    number, other = plain_number(wanted), plain_number(found)
    if tolerances != (None, None) and number is not None:
        if other is None:
            return False
        absolute, relative = (-1 if each is None else each for each in tolerances)
        return abs(number - other) <= absolute or (relative >= 0 and abs(number - other) <= relative * abs(number))
    return wanted == found if rules.case_sensitive else wanted.lower() == found.lower()


def plain_right(expected: bytes, printed: bytes, rules: Rules) -> bool:
    if rules.by == "lines":
        wanted, found = plain_lines(expected, rules), plain_lines(printed, rules)
    else:
        wanted, found = (
            [plain_tokens(text, BLANKS, all_blanks=rules.space_change_sensitive)] for text in (expected, printed)
        )
    return [len(line) for line in wanted] == [len(line) for line in found] and all(
        plain_same(one, other, rules)
        for line, its in zip(wanted, found, strict=True)
        for one, other in zip(line, its, strict=True)
    )


@pytest.mark.parametrize("sizes", [(leaps.LONGEST, stretches.PIECE), (8, 3)], ids=["as it is", "small pieces"])
@given(pair=pairs(), rules=EVERY_RULE)
@settings(max_examples=300)
def test_each_rule_is_what_the_spec_says(sizes: tuple[int, int], pair: tuple[bytes, bytes], rules: Rules) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for module, name, size in [
            (walk, "LONGEST", sizes[0]),
            (leaps, "LONGEST", sizes[0]),
            (walk, "PIECE", sizes[1]),
            (stretches, "PIECE", sizes[1]),
        ]:
            patch.setattr(module, name, size)
        assert (first_difference(*pair, rules) is None) == plain_right(*pair, rules)


@given(text=st.binary() | st.lists(PARTS).map(b"".join), rules=EVERY_RULE)
def test_what_is_expected_is_right(text: bytes, rules: Rules) -> None:
    assert first_difference(text, bytes(bytearray(text)), rules) is None
    assert walk._Walk(text, text, rules).first_difference() is None  # without the shortcut for equal texts


@given(pair=pairs(), rules=EVERY_RULE)
def test_it_does_not_matter_which_of_both_is_expected_but_for_shares_of_it(
    pair: tuple[bytes, bytes], rules: Rules
) -> None:
    rules = msgspec.structs.replace(rules, float_relative=None)
    expected, printed = pair
    assert (first_difference(expected, printed, rules) is None) == (first_difference(printed, expected, rules) is None)


@given(pair=pairs())
def test_who_asks_for_less_takes_all_that_the_stricter_take(pair: tuple[bytes, bytes]) -> None:
    for stricter, laxer in [("exact", "judge0"), ("judge0", "cms"), ("cms", "dmoj"), ("dmoj", "kattis")]:
        rules = DEFAULT["exact"] if stricter == "exact" else LIKE[stricter]
        if (stricter, laxer) == ("cms", "dmoj") and b"\r" in b"".join(pair):
            continue  # \r is a blank in one, and the end of a line in the other
        if laxer == "cms" and b"\0" in b"".join(pair):
            continue
        if first_difference(*pair, rules) is None:
            assert first_difference(*pair, LIKE[laxer]) is None


@given(expected=st.binary() | st.text().map(str.encode), printed=st.binary(), rules=EVERY_RULE)
def test_it_is_always_text_that_can_be_printed(expected: bytes, printed: bytes, rules: Rules) -> None:
    found = first_difference(expected, printed, rules)
    if found:
        assert str(found).isprintable()
        assert msgspec.json.decode(msgspec.json.encode(found), type=Difference) == found
