"""Output is right by the client's rules, exactly as the spec and the judges that it names define them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

import msgspec
import pytest

from spoold.model.compare import leaps, stretches, walk
from spoold.model.compare.excerpts import Difference
from spoold.model.compare.rules import DEFAULT, LIKE, MAX_TOLERANCE, Compare, rules_for
from spoold.model.compare.walk import first_difference
from spoold.model.errors import ClientError
from spoold.model.lenient import as_meant
from tests.engines import REPOSITORY

SPEC = (REPOSITORY / "spool-layout.md").read_text().partition("\n### When output is right\n")[2].partition("\n## ")[0]
BLANKS = b" \t\n\v\f\r"


@pytest.fixture(params=[(leaps.LONGEST, stretches.PIECE), (8, 3)], ids=["as it is", "small pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare in pieces of two sizes, so that short outputs have many pieces too."""
    longest, piece = request.param
    for module in (walk, leaps):
        monkeypatch.setattr(module, "LONGEST", longest)
    for module in (walk, stretches):
        monkeypatch.setattr(module, "PIECE", piece)


def right(expected: bytes, printed: bytes, **keys: object) -> bool:
    return first_difference(expected, printed, rules_for(msgspec.convert(keys, Compare))) is None


# Each rule and each name by example: expected, printed, and whether it is accepted.

EXAMPLES = [
    (b"3\n", b"3\n", "exact lines tokens kattis judge0 cms dmoj"),
    (b"3\n", b"3", "lines tokens kattis judge0 cms dmoj"),
    (b"3", b"3 \n\n \n", "lines tokens kattis judge0 cms dmoj"),
    (b"1\n2\n", b"1\r\n2\r\n", "lines tokens kattis judge0 cms dmoj"),
    (b"1 \n2\n", b"1\n2\n", "lines tokens kattis judge0 cms dmoj"),
    (b"1 2\n", b"1  2\n", "tokens kattis cms dmoj"),
    (b" *\n***\n", b"*\n***\n", "tokens kattis cms dmoj"),
    (b"1\n2\n", b"\n1\n2\n", "tokens kattis dmoj"),
    (b"1\n\n2\n", b"1\n2\n", "tokens kattis dmoj"),
    (b"1\n\n2\n", b"1\n \t\n2\n", "lines tokens kattis judge0 cms dmoj"),
    (b"1 2\n", b"1\n2\n", "tokens kattis"),
    (b"1\n2\n", b"1\r2\n", "tokens kattis dmoj"),
    (b"1 2\n", b"1\r2\n", "tokens kattis cms"),
    (b"1 2\n3\n", b"1\r2\n3\n", "tokens kattis cms"),
    (b"Yes\n", b"YES\n", "kattis"),
    ("É\n".encode(), "é\n".encode(), ""),
    (b"ok\n", b"ok\0\n", "judge0"),
    (b"ok\n", b"ok \0 \0\n\0", "judge0"),
    (b"a\0b\n", b"a\0c\n", ""),
    (b"ab\n", b"a b\n", ""),
    (b"", b"", "exact lines tokens kattis judge0 cms dmoj"),
    (b"", b"\n", "lines tokens kattis judge0 cms dmoj"),
    (b"", b"x", ""),
    (b"x", b"", ""),
    (b"x", b" \n", ""),
    (b"1\n2\n", b"1\n", ""),
    (b"1\n", b"1\n2\n", ""),
    (b"1", b"1.0", ""),
    (b"\xff\xfe\n", b"\xff\xfe", "lines tokens kattis judge0 cms dmoj"),
    (b"\xff", b"\xfe", ""),
    (b"a\x85b", b"a b", ""),
    (b"a\x1cb", b"a b", ""),
]


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("name", ["exact", "lines", "tokens", *LIKE])
@pytest.mark.parametrize(("expected", "printed", "takers"), EXAMPLES)
def test_who_takes_what(name: str, expected: bytes, printed: bytes, takers: str) -> None:
    assert right(expected, printed, **{"like" if name in LIKE else "by": name}) == (name in takers.split())


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(
    ("keys", "expected", "printed", "verdict"),
    [
        ({}, b"a b", b"a b \n", True),
        ({}, b"a b", b"a  b", False),
        ({"space_change_sensitive": False}, b"a b", b" a  b", True),
        ({"space_change_sensitive": False}, b"a b", b"a\nb", False),
        ({"case_sensitive": False}, b"a b", b"A B\n", True),
        ({"by": "tokens", "case_sensitive": False}, b"a\nb", b"A B\n", True),
        ({"by": "tokens", "space_change_sensitive": True}, b"a\n", b"a", False),
        ({"by": "exact", "case_sensitive": False}, b"a\n", b"A\n", True),
        ({"by": "exact", "case_sensitive": False}, b"a\n", b"A", False),
        ({"by": "exact", "float_absolute": 0}, b"1\n", b"1.0\n", True),
        ({"by": "exact", "float_absolute": 0}, b"1 2\n", b"1.0  2\n", False),
        ({"like": "kattis", "case_sensitive": True}, b"yes", b"YES", False),
        ({"like": "kattis", "space_change_sensitive": True}, b"hello\n world", b"HELLO\n world", True),
        ({"like": "kattis", "space_change_sensitive": True}, b"hello\n world", b"hello\nworld", False),
        ({"like": "kattis", "space_change_sensitive": True}, b"hello\n", b"hello", False),
        ({"like": "kattis", "by": "lines"}, b"yes  no\n", b"YES no", True),
        ({"like": "kattis", "by": "exact"}, b"yes\n", b"YES\n", True),
        ({"like": "kattis", "by": "exact"}, b"yes\n", b"yes", False),
        ({"like": "judge0", "space_change_sensitive": False}, b"a b", b"a\0 b\0", True),
        ({"like": "judge0", "by": "tokens", "space_change_sensitive": False}, b"a", b"a\0", False),
        ({"like": "dmoj", "space_change_sensitive": True}, b"a\n b", b"  a \r\n\n b", True),
        ({"like": "dmoj", "space_change_sensitive": True}, b"a\n b", b"a\nb", False),
        ({"like": "dmoj", "space_change_sensitive": True}, b"a  b", b"a b", False),
        ({"like": "dmoj", "by": "exact"}, b"a", b"\na", False),
    ],
)
def test_what_else_is_said_changes_it(keys: dict[str, object], expected: bytes, printed: bytes, verdict: bool) -> None:
    assert right(expected, printed, **keys) is verdict


@pytest.mark.parametrize(
    ("keys", "expected", "printed", "verdict"),
    [
        ({}, b"1", b"1.0", False),
        ({"float_absolute": 0}, b"1", b"1.0", True),
        ({"float_absolute": 0}, b"1", b"1.0000001", False),
        ({"float_relative": 0}, b"0", b"-0.0", True),
        ({"float_absolute": 0.5}, b"1", b"1.5", True),
        ({"float_absolute": 0.5}, b"1", b"1.50001", False),
        ({"float_relative": 0.1}, b"100", b"110", True),
        ({"float_relative": 0.1}, b"100", b"111", False),
        ({"float_relative": 0.1}, b"110", b"100", True),  # relative to the expected number
        ({"float_relative": 0.1}, b"100", b"111.1", False),
        ({"float_relative": 0.01}, b"0", b"1e-300", False),
        ({"float_absolute": 1e-6, "float_relative": 0.01}, b"100", b"100.5", True),
        ({"float_absolute": 1, "float_relative": 1e-9}, b"0.1", b"0.9", True),
        ({"float_absolute": 1}, b"1", b"one", False),
        ({"float_absolute": 1}, b"one", b"1", False),
        ({"float_absolute": 1}, b"x1", b"x1.5", False),
        ({"float_absolute": 1}, b"inf", b"inf", True),
        ({"float_absolute": 1}, b"inf", b"infinity", False),
        ({"float_absolute": 1}, b"1", b"inf", False),
        ({"float_relative": 1}, b"1", b"nan", False),
        ({"float_absolute": 1}, b"nan", b"NaN", False),
        ({"float_absolute": 1e9}, b"1e400", b"1e401", False),
        ({"float_relative": 1e9}, b"1.7e308", b"-1.7e308", True),
        ({"float_absolute": 1e9}, b"1.7e308", b"-1.7e308", False),
        ({"float_absolute": 1}, b"1_000", b"1000", False),
        ({"float_absolute": 1}, b"1000", b"1_000", False),
        ({"float_absolute": 1}, b"1,5", b"1.5", False),
        ({"float_absolute": 1}, "\u0661".encode(), b"1", False),
        ({"float_absolute": 1}, b"1", "\uff11".encode(), False),
        ({"float_absolute": 0}, b"3", b"0x1.8p1", True),
        ({"float_absolute": 0}, b"9007199254740993", b"9007199254740992", True),  # both are the same double
        ({}, b"9007199254740993", b"9007199254740992", False),
        ({"float_absolute": 0.1}, b"a 0.5\nb 1\n", b"a 0.51 \nb 1.0", True),
        ({"float_absolute": 0.1}, b"a 0.5\nb 1\n", b"a 0.51 b 1.0", False),
        ({"float_absolute": 0.1, "like": "kattis"}, b"a 0.5\nb 1\n", b"A 0.51 b 1.0", True),
    ],
)
def test_numbers(keys: dict[str, object], expected: bytes, printed: bytes, verdict: bool) -> None:
    assert right(expected, printed, **keys) is verdict


# The difference that a response tells.


@pytest.mark.parametrize(
    ("keys", "expected", "printed", "told"),
    [
        ({}, b"a\nb c\n", b"a\nb d\n", Difference(line=2, column=3, expected="c", printed="d")),
        ({}, b"a\nb\n", b"a\n", Difference(line=1, column=2, expected="b")),
        ({}, b"", b"", None),
        ({}, b"", b"\n x", Difference(line=2, column=2, printed="x")),
        ({}, b"x", b"", Difference(line=1, column=1, expected="x")),
        ({}, b"a b", b"a  b", Difference(line=1, column=2, expected=" b", printed="  b")),
        ({}, b"a\n\nb", b"a\nb", Difference(line=1, column=2, expected="\\n\\nb", printed="\\nb")),
        ({"by": "exact"}, b"a\n", b"a", Difference(line=1, column=2, expected="\\n")),
        ({"by": "exact"}, b"a", b"a\n", Difference(line=1, column=2, printed="\\n")),
        ({"by": "exact"}, b"a\n", b"a\nb", Difference(line=2, column=1, printed="b")),
        ({"by": "exact"}, b"a\nb", b"a\n", Difference(line=2, column=1, expected="b")),
        ({"by": "tokens"}, b"a b", b"a\n\nc", Difference(line=3, column=1, expected="b", printed="c")),
        ({"like": "dmoj"}, b"x", b"\n\ny", Difference(line=3, column=1, expected="x", printed="y")),
        ({}, b'"\\', b"\x00\xff\x1b", Difference(line=1, column=1, expected='\\"\\\\', printed="\\x00\\xff\\x1b")),
        (
            {},
            "é".encode(),
            "\u2028\u202e".encode(),
            Difference(line=1, column=1, expected="é", printed="\\u2028\\u202e"),
        ),
    ],
)
def test_what_is_told(keys: dict[str, object], expected: bytes, printed: bytes, told: Difference | None) -> None:
    assert first_difference(expected, printed, rules_for(msgspec.convert(keys, Compare))) == told


def test_it_is_told_in_one_line() -> None:
    assert str(Difference(line=2, column=3, expected="c", printed="d")) == (
        'line 2, column 3: "c" is expected, but "d" was printed'
    )
    assert str(Difference(line=2, column=3, expected="c")) == 'line 2, column 3: "c" is expected, but the output ends'
    assert str(Difference(line=2, column=3, printed="d")) == (
        'line 2, column 3: the output should end here, but "d" was printed'
    )


def test_of_long_tokens_the_place_is_shown_where_they_differ() -> None:
    found = first_difference(b"x" * 100_000 + b"yz", b"x" * 100_000 + b"Yz" + b"-" * 1000, DEFAULT["lines"])
    assert found == Difference(
        line=1,
        column=100_000 - 20 + 1,
        expected="..." + "x" * 20 + "yz",
        printed="..." + "x" * 20 + "Yz" + "-" * 78 + "...",
    )


@pytest.mark.parametrize("shift", range(4))
def test_no_character_is_cut(shift: int) -> None:
    same = "🚀é".encode() * 50 + b"x" * shift
    found = first_difference(same + b"a" + "🚀".encode() * 50, same + b"b" + "🚀".encode() * 50, DEFAULT["lines"])
    assert found
    assert "\\x" not in f"{found}"


@pytest.mark.parametrize("printed", [b"", b"-", b"\0" * 5000, b"s" * 300, b"secret " * 3, b"\n" * 5000 + b"secre"])
@pytest.mark.parametrize("secret", [b"secret " * 1000, b"secret" * 1000, b"\xff" * 1000, b"\n" * 1000 + b"secret"])
@pytest.mark.parametrize("name", [*DEFAULT])
def test_little_is_told_of_what_is_expected(name: str, secret: bytes, printed: bytes) -> None:
    found = first_difference(secret, printed, DEFAULT[name])
    assert found
    assert len(re.sub(r"\\x..|\\.", "?", found.expected or "").replace("...", "")) <= 100
    assert len(re.sub(r"\\x..|\\.", "?", found.printed or "").replace("...", "")) <= 100


# Comparisons as clients may write them.


def said(value: object) -> Compare:
    return msgspec.convert(as_meant(value, Compare, "compare"), Compare)


def test_what_is_not_said_is_the_default() -> None:
    assert rules_for(said({})) == rules_for(said([])) == rules_for(said(dict.fromkeys(Compare.__struct_fields__)))
    assert rules_for(said({})) == rules_for(said({"by": "lines"})) == DEFAULT["lines"]


@pytest.mark.parametrize("key", ["float_absolute", "float_relative"])
def test_tolerances_are_in_bounds(key: str) -> None:
    assert getattr(said({key: 0}), key) == 0
    assert getattr(said({key: MAX_TOLERANCE}), key) == MAX_TOLERANCE
    for bad in (-1e-9, MAX_TOLERANCE * 1.01, math.inf, math.nan, 10**400, True, "1"):
        with pytest.raises(ClientError, match=rf"^compare\.{key}: "):
            said({key: bad})
    assert f"from 0 to {MAX_TOLERANCE:.0f} " in SPEC


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"by": "words"}, "compare.by: there is no 'words'; there are lines, tokens, exact"),
        ({"like": "Kattis"}, "compare.like: there is no 'Kattis'; there are kattis, judge0, cms, dmoj"),
        ({"case_sensitive": 1}, "compare.case_sensitive: true or false is needed, not a number"),
        ({"float_tolerance": 1}, "compare.float_tolerance: there is no such key. Is float_absolute meant?"),
        ({"float_relative_tolerance": 1}, "Is float_relative meant?"),
        ("exact", "compare: an object is needed, not a text"),
    ],
)
def test_what_cannot_be_meant_is_refused(bad: object, reason: str) -> None:
    with pytest.raises(ClientError, match=re.escape(reason)):
        said(bad)


@pytest.mark.parametrize("like", [None, *LIKE])
def test_exact_output_has_exact_blanks(like: str | None) -> None:
    assert rules_for(said({"by": "exact", "like": like})).space_change_sensitive
    assert rules_for(said({"by": "exact", "like": like, "space_change_sensitive": True})).space_change_sensitive
    with pytest.raises(ClientError, match=r"^cases\[1\]\.compare\.space_change_sensitive: is true where "):
        rules_for(said({"by": "exact", "like": like, "space_change_sensitive": False}), "cases[1].compare")


def test_a_name_that_is_spelled_out_is_the_same() -> None:
    for name, rules in LIKE.items():
        keys = {key: getattr(rules, key) for key in ("by", "case_sensitive", "space_change_sensitive")}
        assert rules_for(said({"like": name, **keys})) == rules_for(said({"like": name})) == rules


# The spec's own examples.


def tables() -> Iterator[list[tuple[str, ...]]]:
    for found in re.findall(r"(?:^\|.*\n)+", SPEC, re.MULTILINE):
        rows = [
            tuple(cell.strip().replace("`", "") for cell in line.strip("|").split("|")) for line in found.splitlines()
        ]
        yield [rows[0], *rows[2:]]


def table(first: str) -> list[tuple[str, ...]]:
    return next(rows for rows in tables() if rows[0][: len(first.split())] == tuple(first.split()))[1:]


def test_the_spec_has_the_keys() -> None:
    assert [key for key, *_ in table("key type")] == list(Compare.__struct_fields__)
    assert [key for key, *_ in table("key meaning")] == list(Difference.__struct_fields__)


def test_the_spec_has_what_names_stand_for() -> None:
    assert [row[:4] for row in table("like by")] == [
        (name, rules.by, json.dumps(rules.case_sensitive), json.dumps(rules.space_change_sensitive))
        for name, rules in LIKE.items()
    ]
