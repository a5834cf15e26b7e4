"""A text is a number if the C library reads it as one."""

from __future__ import annotations

import ctypes
import math
import platform

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoold.model.compare.numerals import LONGEST, number
from tests.engines import REPOSITORY

SPEC = (REPOSITORY / "spool-layout.md").read_text().partition("\n### When output is right\n")[2].partition("\n## ")[0]


def of_c(token: bytes) -> float | None:
    """Read a token like Kattis' validator: all of it, and only finite numbers."""
    value, rest = ctypes.c_double(), ctypes.create_string_buffer(20)
    if ctypes.CDLL(None).sscanf(token, b"%lf%10s", ctypes.byref(value), rest) != 1:
        return None
    return value.value if math.isfinite(value.value) else None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries read numbers differently")
@given(st.text(alphabet="0123456789.eE+-xXpPafn_infty", min_size=1, max_size=12).map(str.encode))
@pytest.mark.parametrize("before", [b"", b"1", b"-0x", b"0x1."])
def test_a_number_is_what_c_reads(before: bytes, token: bytes) -> None:
    assert number(before + token, 0, len(before + token)) == of_c(before + token)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="as above")
@pytest.mark.parametrize(
    "token",
    [
        *(
            b"1e",
            b"1e+",
            b"1e+5",
            b"1ee5",
            b"1e5.5",
            b".",
            b"+",
            b"5.",
            b".5",
            b"5.e3",
            b".e5",
            b"0x",
            b"0x.",
            b"0x.p1",
        ),
        *(b"0xp5", b"0x1p", b"0x1p-", b"0x1.p3", b"0x.8P1", b"0x1g", b"0x1e+5", b"5e-324", b"2e-324", b"0x1p-1080"),
        *(
            b"1e99999999999999999999",
            b"1e-99999999999999999999",
            b"0x1p99999999999999999999",
            b"1.7976931348623159e308",
        ),
        *(
            b"0x0p99999999999999999999",
            b"1" * 309,
            b"1" * 400,
            b"0." + b"3" * 5000,
            b"0" * 5000 + b"7",
            b"0x" + b"f" * 400,
        ),
    ],
)
def test_odd_numbers_are_what_c_reads(token: bytes) -> None:
    assert number(token, 0, len(token)) == of_c(token)


def test_a_number_has_an_end() -> None:
    longest = b"0." + b"1" * (LONGEST - 2)
    assert number(longest, 0, LONGEST) == 1 / 9
    assert number(b" " + longest + b" ", 1, LONGEST + 1) == 1 / 9
    assert number(longest + b"1", 0, LONGEST + 1) is None
    assert f" {LONGEST} " in SPEC
