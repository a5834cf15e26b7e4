"""When sandboxes are made and removed, as a table: no engine, no clock."""

from __future__ import annotations

import pytest

from spoold.sandbox.schedule import LINGER, NEVER, QUIET, YIELD, Rules, Schedule, Situation

RULES = Rules(wanted=2, reserve=0, backlog=4, threads=2, recycled=False)
RECYCLED = Rules(wanted=2, reserve=0, backlog=4, threads=2, recycled=True)
RESERVE = Rules(wanted=2, reserve=3, backlog=4, threads=2, recycled=False)


def seen(**parts: object) -> Situation:
    return Situation(**{"last_job": 100.0, "missing_since": 100.0} | parts)  # type: ignore[arg-type]


def due(rules: Rules, situation: Situation, *, idle: float = 1.0, now: float = 200.0) -> tuple[float, float]:
    """Return when a sandbox is made, and when one is removed."""
    schedule = Schedule(rules, lambda: idle)
    return schedule.making_due(situation, now), schedule.removing_due(situation, now)


@pytest.mark.parametrize(
    ("rules", "situation", "made"),
    [
        (RULES, seen(waiting=2), NEVER),
        (RULES, seen(waiting=1), 100.0 + QUIET),
        (RULES, seen(waiting=1, running=1), 100.0 + YIELD),  # jobs go first, for a while
        (RULES, seen(waiting=1, making=1), NEVER),
        (RULES, seen(takers=1, running=2), 200.0),  # a job that waits comes first
        (RULES, seen(takers=1, waiting=1), 100.0 + QUIET),
        (RULES, seen(waiting=0, not_before=250.0), 250.0),
        (RULES, seen(waiting=0, closing=True), NEVER),
        (RULES, seen(waiting=0, removing=1), NEVER),  # at most half of the threads remove
        (RECYCLED, seen(running=2), NEVER),  # running containers come back
        (RECYCLED, seen(running=1), 100.0 + YIELD),
        (RESERVE, seen(waiting=2), 200.0),
        (RESERVE, seen(waiting=5), NEVER),
        (RESERVE, seen(waiting=2, removing=1), NEVER),
    ],
)
def test_when_one_is_made(rules: Rules, situation: Situation, made: float) -> None:
    assert due(rules, situation)[0] == made


@pytest.mark.parametrize(
    ("situation", "removed"),
    [
        (seen(), NEVER),
        (seen(used=1, used_since=150.0, light=False), 100.0 + QUIET),  # one that holds memory waits only for a moment
        (seen(used=1, used_since=150.0, light=False, running=1), 150.0 + YIELD),
        (seen(used=1, used_since=199.0), 200.0),  # the CPU is idle
        (seen(used=3, used_since=199.0), 200.0),  # too many
        (seen(used=1, used_since=199.0, closing=True), 200.0),
    ],
)
def test_when_one_is_removed(situation: Situation, removed: float) -> None:
    assert due(RULES, situation)[1] == removed


def test_what_is_light_lingers_while_the_machine_is_busy() -> None:
    busy = seen(used=1, used_since=199.0, running=1)
    assert 200.0 < due(RULES, busy, idle=0.0)[1] <= 199.0 + LINGER
    assert due(RULES, busy, idle=0.0, now=199.0 + LINGER)[1] == 199.0 + YIELD
    assert due(RESERVE, seen(waiting=2), idle=0.0)[0] > 200.0
