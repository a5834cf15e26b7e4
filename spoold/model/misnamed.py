"""Files whose name is no submission's: the names of their refusals, what is wrong with the name, and a right one.

Spec: spool-layout.md, "Names" and "Refusals". Such a name may have any byte. The name of its refusal stands for it with
few kinds of bytes, which are safe everywhere. The refusal's name has at most one ``@``, and a client cannot put it
there. So nobody can make a file whose refusal has the name of another answer.
"""

from __future__ import annotations

import hashlib
import re
import sys

from spoold.client import names
from spoold.model import ids

PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
MOST, SHORTENED = 200, 100  # bytes of the text for a name. A longer text is cut to SHORTENED bytes
SHOWN = 5  # how many wrong characters are named
WORD = re.compile(r"[A-Za-z0-9_]{8,32}")
ENDING = re.compile(r"\.(json|cancel)", re.IGNORECASE)
OTHER_ENDING = re.compile(r"\.[A-Za-z]{1,5}\Z")
RIGHT = (
    "A submission is a JSON object in a file called ID.json. ID has 1 to 128 of A-Z a-z 0-9 . _ -, begins with a "
    f"letter or digit, and does not end in {', '.join(ids.RESERVED_ENDINGS)}"
)
CANCEL = "A cancel is a file called ID.cancel that holds the ID of a submission, and nothing else"


def stem(name: str) -> str:
    """Return the text for a name in its refusal's name and in ``Submission_id``, without one ``.json`` at its end."""
    return escaped(_bytes(name).removesuffix(b".json"))


def escaped(raw: bytes) -> str:
    """Return a name of few kinds of bytes that stands for ``raw``, and for nothing else."""
    encoded = "".join(chr(byte) if byte in PLAIN else f"%{byte:02X}" for byte in raw)
    return encoded if len(encoded) <= MOST else f"{encoded[:SHORTENED]}~{hashlib.sha256(raw).hexdigest()}"


def refusal_names(name: str, uid: int, sha256: str) -> list[str]:
    """Return the names in ``done/`` that the refusal may have: it gets the first that is free, else the last.

    ``sha256`` is that of the file's bytes, in hexadecimal. Where the name could be an id as well, the refusal's name
    has more of these digits than the refusal of such an id has. So neither is taken for the other.
    """
    called = stem(name)
    own = f"{called}@{uid}-{sha256[: digits_in(called)]}.refused.json"
    return [f"{called}.refused.json", own] if ids.may_use(called, uid) else [own]


def digits_in(called: str) -> int:
    """Return how many digits of the SHA-256 the name of such a refusal has."""
    return 16 if ids.is_id(called) else 8


def shown(name: str) -> str:
    """Return a name as text. Characters that cannot be printed are escaped."""
    text = _bytes(name).decode(errors="backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def reason(name: str, uid: int) -> str:
    """Say what is wrong with a name, and which name would be right."""
    good = suggested(name, uid)
    right = CANCEL if ids.cancelled_id(good) else RIGHT
    return f"'{shown(name)}' is not a name for a submission: {_wrong(name)}. {right}: for example {good}"


def _bytes(name: str) -> bytes:
    return name.encode(sys.getfilesystemencoding(), "surrogateescape")


def _wrong(name: str) -> str:
    before, ending = _parts(name)
    found = [] if ending in (".json", ".cancel") else [f"it ends in {ending}" if ending else "it does not end in .json"]
    id_, at, word = before.partition("@")
    if at and not WORD.fullmatch(word):
        found.append("the part after @ has to be 8 to 32 letters, digits and _")
    odd = sorted({each for each in id_ if not each.isascii() or ord(each) not in PLAIN})
    if odd:
        found.append("it has " + " ".join(f"'{shown(each)}'" for each in odd[:SHOWN]) + (" ..." * (len(odd) > SHOWN)))
    if id_[:1] in ("", ".", "_", "-"):
        found.append("it does not begin with a letter or digit")
    if len(id_) > 128:
        found.append(f"the id in it has {len(id_)} characters")
    found += [f"the id in it ends in {each}" for each in ids.RESERVED_ENDINGS if id_.endswith(each)]
    return ", ".join(found)


def suggested(name: str, uid: int) -> str:
    """Return a name for a submission or a cancel that is like ``name``, and that this user may use."""
    before, ending = _parts(name)
    if not ending:
        before = _parts(OTHER_ENDING.sub("", before).rstrip(". "))[0]
    id_ = names.proper(before.partition("@")[0])
    kind = ".cancel" if ending.lower() == ".cancel" else ".json"
    return f"{id_ if ids.may_use(id_, uid) else id_.replace('.', '-', 1)}{kind}"


def _parts(name: str) -> tuple[str, str]:
    """Return the name before the ending that tells what a file is, and that ending ("" where it has none)."""
    before, dot, last = name.rpartition(".")
    return (before, dot + last) if ENDING.fullmatch(dot + last) else (name, "")
