"""Where submissions lie that a cancel asks for, when their names tell nobody.

Spec: spool-layout.md, "Cancelling". A cancel waits for a submission that its owner has in the drop box. That may have
any name ``<id>@<word>.json``, so it is found by looking through all names. Only of what is asked for a name is kept,
one for each owner. What is not asked for again is forgotten. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from spoold.model import ids


class _Asked(msgspec.Struct):
    """Looks through all names are numbered: which had begun when this was asked for first, and last; what was met."""

    first: int
    last: int
    names: dict[int, str] = {}  # by uid


class Sought:
    """What is asked for by id; ``owner`` tells whose a name is now, None where there is nothing by that name."""

    def __init__(self, owner: Callable[[str], int | None]) -> None:
        self._owner = owner
        self._asked: dict[str, _Asked] = {}
        self._begun = self._ended = 0

    def begin(self) -> None:
        """Note that a look through all names begins."""
        self._asked = {id_: asked for id_, asked in self._asked.items() if asked.last >= self._begun}
        self._begun += 1

    def end(self) -> None:
        """Note that it is over."""
        self._ended = self._begun

    def meet(self, name: str) -> None:
        """Note a name that lies there."""
        id_ = ids.submission_id(name) if self._asked else None
        if id_ in self._asked and (uid := self._owner(name)) is not None:
            self._asked[id_].names[uid] = name

    def may_lie(self, id_: str, uid: int) -> bool:
        """Ask for a submission of a user's; False where there is none, as a look through all names since has told."""
        asked = self._asked.setdefault(id_, _Asked(self._begun, self._begun))
        asked.last = self._begun
        usual = f"{id_}.json"
        return self._ended <= asked.first or uid in (self._owner(usual), self._owner(asked.names.get(uid, usual)))
