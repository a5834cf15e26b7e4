"""Names that a client makes and looks for: ids, files in the drop box, answers.

Spec: spool-layout.md, "Names" and "What a client may rely on". The daemons use this module as well.
"""

from __future__ import annotations

import re

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
RESERVED_ENDINGS = (".response", ".cancel", ".outputs", ".refused")
OWNED = re.compile(r"(?P<uid>0|[1-9][0-9]{0,9})\..*")
MOST = 80  # characters of a new id, without its random part
RULE = (
    "letters, digits, '.', '_' and '-', at most 128, the first a letter or digit, and not ending in "
    f"{', '.join(RESERVED_ENDINGS)}"
)


def is_id(text: str) -> bool:
    """Tell whether ``text`` is valid as the id of a submission."""
    return ID.fullmatch(text) is not None and not text.endswith(RESERVED_ENDINGS)


def owner_of(id_: str) -> int | None:
    """Return the uid to which the prefix of an id reserves it; None where the first user to submit the id owns it."""
    match = OWNED.fullmatch(id_)
    return int(match["uid"]) if match else None


def proper(text: str) -> str:
    """Return a valid id that resembles ``text``."""
    import unicodedata  # noqa: PLC0415 - it is large, and only making an id needs it

    plain = "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))
    id_ = re.sub(r"[^A-Za-z0-9._]+|-+", "-", plain).lstrip("._-")[:100].rstrip("._-") or "job"
    return id_ if is_id(id_) else id_.replace(".", "-")


def new_id(stem: str) -> str:
    """Return an id that nobody can guess: ``stem`` without the characters that ids may not have, and a random part."""
    cleaned = proper(stem)[:MOST]
    if owner_of(cleaned) is not None:  # spoold may know us by another uid than the prefix says
        cleaned = cleaned.replace(".", "-", 1)
    return f"{cleaned}-{_random(6)}"


def unguessable(id_: str) -> str:
    """Return a stem for a file name in the drop box that nobody can guess. The ending follows it."""
    return f"{id_}@{_random(8)}"


def _random(size: int) -> str:
    import secrets  # noqa: PLC0415 - a client that only reads a response need not load it

    return secrets.token_hex(size)


def response_name(id_: str) -> str:
    """Return the name in ``done/`` of the response."""
    return f"{id_}.response.json"


def tar_name(id_: str) -> str:
    """Return the name in ``done/`` of the tar of returned files that did not fit into the response."""
    return f"{id_}.outputs.tar"


def refusal_name(id_: str, uid: int, sha256: str) -> str:
    """Return the name in ``done/`` of the answer to a file whose id another request had used before."""
    return f"{id_}@{uid}-{sha256[:8]}.refused.json"
