"""Bytes in a request: text, base64 or hex.

Spec: spool-layout.md, "The request" and "What encoders make of it".
"""

from __future__ import annotations

import base64
import re
from typing import Literal

from spoold.model.errors import ClientError

HEX = re.compile(r"(?:[0-9a-fA-F]{2})*+")  # it never backtracks, since each step of that would take memory
SPACES = dict.fromkeys(at for at in range(0x3001) if chr(at).isspace())

Encoding = Literal["utf8", "base64", "hex"]


def decode(text: str, encoding: Encoding, where: str) -> bytes:
    """Return the bytes that ``text`` stands for. Raises :class:`ClientError` that names ``where``.

    Encoders break base64 into lines. They break hex into lines and groups.
    """
    if encoding == "utf8":
        return text.encode()
    if encoding == "hex":
        digits = text.translate(SPACES)
        if not HEX.fullmatch(digits):
            raise ClientError(f"{where}: not hex: digits from 0 to f are needed, two for each byte")
        return bytes.fromhex(digits)
    lines = text.replace("\r\n", "").replace("\n", "")
    try:
        return base64.b64decode(lines, validate=True)
    except ValueError as error:
        raise ClientError(
            f"{where}: not base64: letters, digits, + and / are needed, four for three bytes, with = to fill the last"
        ) from error
