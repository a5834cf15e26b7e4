"""Reads tokens as numbers, as sscanf(3) of the GNU C Library reads them by ``%lf``.

Spec: spool-layout.md, "When output is right". Python's own ``float`` takes underscores, but neither hexadecimal numbers
nor an exponent without digits. Each pattern reads a token once, and never backtracks.
"""

from __future__ import annotations

import math
import re

LONGEST = 64 * 1024  # bytes of a number. A longer token is text
DECIMAL = re.compile(rb"([+-]?+(?:[0-9]++\.?+[0-9]*+|\.[0-9]++))(?:e[+-]?+([0-9]*+))?+", re.IGNORECASE)
HEXADECIMAL = re.compile(
    rb"([+-]?+)0x(?:\.|((?=\.?[0-9a-f])[0-9a-f]*+\.?+[0-9a-f]*+)(?:p[+-]?+([0-9]*+))?+)", re.IGNORECASE
)


def number(text: bytes, start: int, stop: int) -> float | None:
    """Return the finite number that the token from ``start`` to ``stop`` is, None where it is none."""
    if stop - start > LONGEST:
        return None
    if decimal := DECIMAL.fullmatch(text, start, stop):
        return _finite(float(decimal[0] if decimal[2] else decimal[1]))
    if hexadecimal := HEXADECIMAL.fullmatch(text, start, stop):
        return _of_hexadecimal(*hexadecimal.group(0, 1, 2, 3))
    return None


def _of_hexadecimal(token: bytes, sign: bytes, digits: bytes | None, exponent: bytes | None) -> float | None:
    if digits is None:
        return 0.0  # 0x and a point: C reads the 0, and stops there
    shown = token if exponent else sign + b"0x" + digits
    try:
        return _finite(float.fromhex(shown.decode("ascii")))
    except OverflowError:
        return None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
