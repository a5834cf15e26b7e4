"""A collection takes the right builds, and never any other."""

from __future__ import annotations

import pytest

from spoold.model.collection import Held, Rules, unused

NOW = 1000.0
OFF = Rules(max_age=0, max_count=0, max_size=0, min_free=0)


def held(name: str, last_used: float, own_size: int = 10, needed: bool = False) -> Held:
    return Held(build_id=name, last_used=last_used, own_size=own_size, needed=needed)


CACHE = [held("new", 990), held("old", 10), held("middle", 500), held("busy", 1, needed=True)]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (OFF, []),
        (Rules(max_age=100, min_free=0), [("old", "age"), ("middle", "age")]),
        (Rules(max_age=0, max_size=95, min_free=0), [("old", "size")]),
        (Rules(max_age=0, max_size=85, min_free=0), [("old", "size"), ("middle", "size")]),
        (Rules(max_age=0, max_size=1, min_free=0), [("old", "size"), ("middle", "size"), ("new", "size")]),
        (Rules(max_age=0, min_free=55), [("old", "free disk")]),
        (Rules(max_age=0, min_free=0, max_count=2), [("old", "number"), ("middle", "number")]),
        (Rules(max_age=0, min_free=0, max_count=4), []),
        (Rules(max_age=600, max_size=85, min_free=65), [("old", "age"), ("middle", "size")]),
    ],
)
def test_least_recently_used_first_and_no_more_than_needed(rules: Rules, expected: list[tuple[str, str]]) -> None:
    chosen = unused(CACHE, rules, now=NOW, store_size=100, free=50)
    assert [(verdict.build_id, verdict.why) for verdict in chosen] == expected


def test_what_is_needed_stays_whatever_the_rules_say() -> None:
    cache = [held(str(number), number, needed=True) for number in range(5)]
    assert (
        unused(cache, Rules(max_age=1, max_count=1, max_size=1, min_free=1 << 60), now=NOW, store_size=1 << 60, free=0)
        == []
    )
