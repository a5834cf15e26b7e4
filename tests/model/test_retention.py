"""What goes is the oldest, as much as the rules say, and nothing young."""

from __future__ import annotations

import pytest

from spoold.model.retention import GRAIN, Census, Rules

NOW = 1_000_000 * GRAIN
OFF = Rules(max_age=0, max_count=0, max_size=0, min_age=0)


def census(*ages: int, size: int = 10) -> Census:
    made = Census()
    for age in ages:
        made.add(NOW - age * GRAIN, size)
    return made


@pytest.mark.parametrize(
    ("rules", "max_age", "gone"),
    [
        (OFF, 0, []),
        (OFF, 5 * GRAIN, [6, 7, 8, 9]),
        (Rules(max_age=0, max_count=3, max_size=0, min_age=0), 0, [3, 4, 5, 6, 7, 8, 9]),
        (Rules(max_age=0, max_count=0, max_size=25, min_age=0), 0, [2, 3, 4, 5, 6, 7, 8, 9]),
        (Rules(max_age=0, max_count=3, max_size=0, min_age=5 * GRAIN), 0, [6, 7, 8, 9]),
        (Rules(max_age=0, max_count=8, max_size=0, min_age=0), 6 * GRAIN, [7, 8, 9]),
        (Rules(max_age=0, max_count=100, max_size=0, min_age=0), 0, []),
    ],
)
def test_the_cutoff(rules: Rules, max_age: float, gone: list[int]) -> None:
    """Of ten, one a minute, these go, by their age in minutes."""
    cutoff = census(*range(10)).cutoff(rules, max_age, NOW)
    assert [age for age in range(10) if NOW - age * GRAIN < cutoff] == gone
