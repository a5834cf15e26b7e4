"""Names of entries. The default owner is the user that runs the tests, who is the client in most of them."""

from __future__ import annotations

import os

from spoold.model import ids
from spoold.model.ids import Entry


def mine(id_: str, attempt: int = 1, owner: int | None = None) -> Entry:
    """Return the entry of a submission of ``owner``, a uid."""
    return Entry(id_, attempt, os.geteuid() if owner is None else owner)


def named(id_: str, attempt: int = 1, owner: int | None = None) -> str:
    """Return the entry's name in ``new/``, ``building/`` and ``running/``."""
    return ids.claimed_name(mine(id_, attempt, owner))


def result_named(id_: str, attempt: int = 1, owner: int | None = None) -> str:
    """Return the name of the entry's result in ``tmp/``."""
    return ids.result_name(mine(id_, attempt, owner))
