"""Says why the bytes of a dropped file are no JSON, in words for its author.

Spec: spool-layout.md, "The request". Python's parser finds the place, and its message tells what kind of mistake it is.
Nobody is shown that message.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

CAPITALS = {"T": "true", "F": "false", "N": "null"}
KINDS = {
    "Unterminated string": "the string that begins there has no end",
    "Invalid control character": r"write a line end or another control character in a string as \n or \u0001",
    "Invalid \\": r"a backslash has to be followed by one of \" \\ \/ \b \f \n \r \t, or \u with four digits",
    "Illegal trailing comma": "no value follows the comma there",
    "Extra data": "something follows the object, which has ended there",
}
NEEDED = {
    "Expecting property name": 'a key in double quotes is needed there, as in {"files": []}',
    "Expecting ':'": "a colon is needed there, between a key and its value",
    "Expecting ','": "a comma is needed there, or the end of the object or list",
    "Expecting value": "an object, a list, a text in double quotes, a number, true, false or null is needed there",
}
DIGITS = "0123456789"
CHARACTERS = {
    "\0": "write the file as UTF-8: in UTF-16 and UTF-32 there are bytes of zero",
    "'": "write keys and strings in double quotes",
    "/": "JSON has no comments",
    "#": "JSON has no comments",
    "}": "there is a comma before it, or a value is missing",
    "]": "there is a comma before it, or a value is missing",
    ",": "a value is missing before it",
}
# A string, or a word that Python's parser takes for a number.
WORDS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|(?P<word>-?Infinity|NaN)', re.DOTALL)


def why_not_json(data: bytes) -> str:
    """Return where ``data`` stops being JSON, and why, or "" where it is JSON.

    The caller has to bound the strings and commas in ``data`` to those of a request, since the values between them take
    memory.
    """

    def refuse(word: str) -> NoReturn:
        raise _ConstantError(word)

    text = data.decode(errors="surrogateescape")
    try:
        json.loads(text, parse_constant=refuse, parse_int=len)
    except json.JSONDecodeError as error:
        return f"{_place(text, error.pos)}: {_reason(text, error)}"
    except _ConstantError:
        found = next(match for match in WORDS.finditer(text) if match["word"])
        return f"{_place(text, found.start())}: {found['word']} is not a number of JSON: leave out its key"
    except RecursionError:
        return "it is nested too deeply"
    return ""


class _ConstantError(ValueError):
    pass


def _place(text: str, at: int) -> str:
    before = text[:at]
    return f"line {before.count(chr(10)) + 1}, column {at - before.rfind(chr(10))}"


def _reason(text: str, error: json.JSONDecodeError) -> str:
    for start, meaning in KINDS.items():
        if error.msg.startswith(start):
            return meaning
    found = text[error.pos : error.pos + 1]
    if not text.strip():
        return "the file is empty"
    if not text[error.pos :].strip():
        return "the JSON ends there, before it is complete"
    if "\udc80" <= found <= "\udcff":
        byte = ord(found) - 0xDC00
        return f"byte {len(text[: error.pos].encode(errors='surrogateescape'))} of the file is 0x{byte:02x}"
    if found in CAPITALS:
        return f"{CAPITALS[found]} has to be in small letters"
    return CHARACTERS.get(found, f"{found!a} is not allowed there: {_needed(text, error)}")


def _needed(text: str, error: json.JSONDecodeError) -> str:
    before = text[: error.pos].strip()
    if not before:
        return "a request is an object, which begins with {"
    if text[error.pos] in "+." or before[-1] in DIGITS:
        return "a number is written as 10, 0.5, -1 or 6e7"
    return next((meaning for start, meaning in NEEDED.items() if error.msg.startswith(start)), "")
