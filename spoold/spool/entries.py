"""The part of a queue that ``results`` needs to end its entries."""

from __future__ import annotations

from typing import Protocol

from spoold.model.ids import Entry, Private
from spoold.model.states import State


class Entries(Protocol):
    """The part of a queue that is needed to end its entries."""

    def path(self, directory: str, name: str = "") -> str:
        """Return the path of ``name`` in a directory of the queue."""

    def entry_path(self, state: State, entry: Entry) -> str:
        """Return where ``entry`` is while it is in ``state``."""

    def private(self, kind: Private, stem: str) -> str:
        """Return the path under which a file of that kind is written before it is shown."""

    def attempts_in(self, state: State) -> list[int]:
        """Return the attempts that an entry in ``state`` can have."""

    def release_id(self, id_: str) -> None:
        """Forget whose an id is, once its entry is in ``done/``."""
