"""Room that is kept for a job that does not fit, see ``ready``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from spoold.model.turns import Turns

if TYPE_CHECKING:
    from spoold.actors.executor.ready import Ready


class Room(NamedTuple):
    """Room that has been kept since ``began`` for a person's next job, which does not fit.

    The job begins at ``shadow`` at the latest, and ``beside`` bytes are free beside it by then. ``ahead`` are the
    persons who already waited and had used less. Since ``since``, ``slots`` slots have been idle because room is kept.
    For the time before ``since`` the person owes ``owed`` slot-seconds.
    """

    person: int
    turns: Turns[Ready]
    job: Ready
    ahead: frozenset[int]
    shadow: float
    beside: int
    began: float
    since: float
    slots: int = 0
    owed: float = 0.0
