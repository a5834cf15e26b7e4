"""A comparison takes time in proportion to the outputs, and little memory beside them.

A quadratic comparison would need days for these outputs.
"""

from __future__ import annotations

import sys
import tracemalloc

import msgspec
import pytest

from spoold.model.compare.rules import DEFAULT, LIKE, Rules
from spoold.model.compare.walk import first_difference

SIZE = 1024 * 1024
LONG = [
    (b"1\n" * (SIZE // 2), b"1 \r\n" * (SIZE // 2)),
    (b"1\n" * (SIZE // 2), b"2\n" * (SIZE // 2)),
    (b"1" * SIZE, b"1" * (SIZE - 1) + b"x"),
    (b"1" * SIZE + b"x", b"1" * SIZE + b"y"),
    (b"a" * SIZE, b"A" * SIZE),
    (b"\xff" * SIZE, b"\xfe" * SIZE),
    (b"a" + b" " * SIZE + b"b", b"a" + b" " * SIZE + b"c"),
    (b"a" + b" " * SIZE + b"b", b"a" + b"\n" * (SIZE + 1) + b"b"),
    (b"a\n" + b"\0" * SIZE, b"a\n" + b"\0" * SIZE + b"b"),
    (b"a" + b" \0" * SIZE, b"a" + b"\0 " * SIZE + b"\n"),
    (b"", b" " * SIZE),
    (b"x", b"\n" * SIZE + b"x"),
    ((b"0." + b"3" * 60_000 + b" ") * 30, (b"0." + b"3" * 60_001 + b" ") * 30),
    ((b"1" * 70_000 + b" ") * 30, (b"1" * 70_000 + b"\n") * 30),
    ((b"1" * 60_000 + b"x ") * 15, (b"1" * 60_000 + b"x\n") * 15),
    ((b"e+." * 20_000 + b" ") * 30, (b"e+." * 20_000 + b"\n") * 30),
]


@pytest.mark.parametrize("rules", [*DEFAULT.values(), *LIKE.values()])
@pytest.mark.parametrize("pair", LONG, ids=range(len(LONG)))
def test_long_outputs_take_little_memory_beside_them(pair: tuple[bytes, bytes], rules: Rules) -> None:
    rules = msgspec.structs.replace(rules, float_absolute=0.1)
    tracemalloc.start()
    try:
        first_difference(*pair, rules)
        assert tracemalloc.get_traced_memory()[1] < SIZE
    finally:
        tracemalloc.stop()


def calls(expected: bytes, printed: bytes, rules: Rules) -> int:
    """Return how many functions a comparison calls, including those written in C."""
    seen = 0

    def count(_frame: object, event: str, _what: object) -> None:
        nonlocal seen
        seen += event.endswith("call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        assert first_difference(expected, printed, rules) is None
    finally:
        sys.setprofile(before)
    return seen


@pytest.mark.parametrize("name", LIKE)
def test_twice_the_output_takes_twice_the_steps(name: str) -> None:
    rules = msgspec.structs.replace(LIKE[name], float_absolute=0.1)
    expected, printed = b"0.5 a\n\n1\n" * 5000, b"0.51 a \n\n1\r\n" * 5000
    once, twice = (calls(expected * times, printed * times, rules) for times in (1, 2))
    assert twice < 2.2 * once


def test_lines_that_differ_in_blanks_at_their_ends_only_are_not_looked_at_one_by_one() -> None:
    for rules in LIKE.values():
        assert calls(b"a b\n" * 40_000, b"a b \r\n" * 40_000, rules) < 4 * 40_000


def test_where_each_token_differs_whole_pieces_are_not_looked_at_for_each() -> None:
    rules = msgspec.structs.replace(LIKE["kattis"], float_absolute=0.1)
    assert calls(b"0.5 " * 10_000, b"0.51 " * 10_000, rules) < 30 * 10_000
