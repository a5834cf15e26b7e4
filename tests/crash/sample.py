"""The choice of cases for the plain run, among thousands of like ones. ``contrib/test --all`` tries each.

The plain run tries one of ``EVERY``, evenly over each scenario, and beyond that the first case of each kind. A kind is
an operation with its directories and the endings of names, such as the rename of a ``.json`` from ``new`` to
``running``. So after each step that a spool ever takes, an actor dies and the power fails at least once. The choice is
the same in each run.
"""

from __future__ import annotations

import os
import re
import zlib

from tests.crash.operations import Operation

LONG = bool(os.environ.get("SPOOLD_TEST_LONG"))
# Losses come in pairs, and lost replies by threes. With a number that neither divides, each of them gets its turn.
EVERY = 1 if LONG else 5
ENDING = re.compile(r"(?:\.[a-z]{2,})*$")


class Sample:
    """The choice among the cases of one test. ``kinds`` has those that were tried in this session.

    Without ``kinds`` nothing is tried for being the first of its kind.
    """

    def __init__(self, name: str, kinds: set[object] | None = None, every: int = EVERY) -> None:
        self._number = zlib.crc32(name.encode())
        self._kinds = kinds
        self._every = every

    def takes(self, kind: object = None) -> bool:
        """Tell whether the next case, which is of this kind, is to be tried."""
        self._number += 1
        is_first = self._kinds is not None and kind not in self._kinds
        if self._kinds is not None:
            self._kinds.add(kind)
        return is_first or self._number % self._every == 0


def kind_of(operation: Operation) -> tuple[str, ...]:
    """Return an operation without the ids and random words in its paths."""
    ways = (f"{os.path.dirname(path)}/*{_ending(path)}" for path in (operation.path, operation.target))
    return operation.kind, *ways


def _ending(path: str) -> str:
    found = ENDING.search(os.path.basename(path))
    return found[0] if found else ""
