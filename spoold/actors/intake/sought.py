"""Where submissions lie that a cancel asks for, when their names do not tell their owners.

Spec: spool-layout.md, "Cancelling". A cancel waits as long as its owner has the submission in the drop box. That file
may have any name ``<id>@<word>.json``, so it is found by looking through all names. For each id that is asked for, one
name of each owner is kept. Ids that are not asked for again are forgotten. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from spoold.model import ids


class _Asked(msgspec.Struct):
    """An id that a cancel asked for, and the names met for it.

    Looks through all names are numbered. ``first`` and ``last`` tell which one had begun when the id was first and last
    asked for.
    """

    first: int
    last: int
    names: dict[int, str] = {}  # by uid


class Sought:
    """The ids that are asked for. ``owner`` returns the owner of a name, None where there is nothing by that name."""

    def __init__(self, owner: Callable[[str], int | None]) -> None:
        self._owner = owner
        self._asked: dict[str, _Asked] = {}
        self._begun = self._ended = 0

    def begin(self) -> None:
        """Note that a look through all names begins."""
        self._asked = {id_: asked for id_, asked in self._asked.items() if asked.last >= self._begun}
        self._begun += 1

    def end(self) -> None:
        """Note that the look has ended."""
        self._ended = self._begun

    def meet(self, name: str) -> None:
        """Note a name that lies there."""
        id_ = ids.submission_id(name) if self._asked else None
        if id_ in self._asked and (uid := self._owner(name)) is not None:
            self._asked[id_].names[uid] = name

    def may_lie(self, id_: str, uid: int) -> bool:
        """Ask for a user's submission.

        Return False only after a look through all names that began later has ended without it.
        """
        asked = self._asked.setdefault(id_, _Asked(self._begun, self._begun))
        asked.last = self._begun
        usual = f"{id_}.json"
        return self._ended <= asked.first or uid in (self._owner(usual), self._owner(asked.names.get(uid, usual)))
