"""Retention removes the oldest answers of the owners who have the most, as many as the rules say, and no young ones."""

from __future__ import annotations

import pytest

from spoold.model.retention import GRAIN, NOTHING, WITHOUT_END, Amount, Census, Going, Rules, decide

NOW = 1_000_000 * GRAIN
OFF = Rules(max_age=0, max_count=0, max_size=0, min_age=0)
OLD, YOUNG = 100, 1  # in grains; min_age lies between them
HOUR = Rules(max_age=0, max_count=0, max_size=0, min_age=60 * GRAIN)


def census(**owners: list[tuple[int, int]]) -> Census:
    """Return the holdings of owners (``u1`` is the uid 1): pairs of age in grains and size."""
    made = Census(NOW)
    for name, owned in owners.items():
        for age, size in owned:
            made.add(int(name[1:]), NOW - age * GRAIN, size)
    return made


def gone(going: Going, owner: int, *ages: int) -> list[int]:
    return [age for age in ages if going.includes(owner, NOW - age * GRAIN)]


@pytest.mark.parametrize(
    ("rules", "max_age", "expected"),
    [
        (OFF, 0, []),
        (OFF, 5 * GRAIN, [6, 7, 8, 9]),
        (Rules(max_age=0, max_count=3, max_size=0, min_age=0), 0, [3, 4, 5, 6, 7, 8, 9]),
        (Rules(max_age=0, max_count=0, max_size=25, min_age=0), 0, [2, 3, 4, 5, 6, 7, 8, 9]),
        (Rules(max_age=0, max_count=3, max_size=0, min_age=5 * GRAIN), 0, [5, 6, 7, 8, 9]),
        (Rules(max_age=0, max_count=8, max_size=0, min_age=0), 6 * GRAIN, [7, 8, 9]),
        (Rules(max_age=0, max_count=100, max_size=0, min_age=0), 0, []),
    ],
)
def test_of_one_owner_the_oldest_go(rules: Rules, max_age: float, expected: list[int]) -> None:
    """An owner has ten answers, one for each minute. ``expected`` has the ages of those that go."""
    going = decide(census(u1=[(age, 10) for age in range(10)]), rules, max_age)
    assert gone(going, 1, *range(10)) == expected


@pytest.mark.parametrize(("max_count", "max_size"), [(0, 100), (10, 0)])
def test_who_has_much_pushes_nobody_out(max_count: int, max_size: int) -> None:
    """An owner's many young answers replace that owner's old ones, and not another's older ones."""
    rules = Rules(max_age=0, max_count=max_count, max_size=max_size, min_age=60 * GRAIN)
    owned = census(u1=[(OLD, 10)] * 10, u2=[(2 * OLD, 10)] * 3)
    going = decide(owned, rules, 0)
    assert gone(going, 1, OLD) == [OLD]
    assert not gone(going, 2, 2 * OLD)


def test_a_full_disk_takes_from_whoever_fills_it_also_what_is_young() -> None:
    owned = census(u1=[(YOUNG, 1000), (3, 1000)], u2=[(YOUNG, 10)], u3=[(OLD, 10)])
    going = decide(owned, HOUR, 0, short=Amount(bytes=500), much=Amount(100, 1500))
    assert gone(going, 1, YOUNG, 3) == [3]
    assert not gone(going, 2, YOUNG)
    assert not gone(going, 3, OLD)


def test_a_full_disk_takes_nothing_young_of_those_who_do_not_fill_it() -> None:
    owned = census(u1=[(YOUNG, 1000), (OLD, 1000)], u2=[(YOUNG, 10), (OLD, 10)])
    going = decide(owned, HOUR, 0, short=Amount(bytes=990), much=Amount(100, 5000))
    assert [gone(going, owner, YOUNG, OLD) for owner in (1, 2)] == [[OLD], []]


def test_a_disk_that_is_full_of_something_else_takes_nobodys() -> None:
    """Any user can fill the disk through the drop box. Removing others' answers would not make enough room."""
    owned = census(u1=[(OLD, 100)] * 11, u2=[(OLD, 100)] * 9)
    going = decide(owned, HOUR, 0, short=Amount(bytes=500), much=Amount(100, 5000))
    assert [gone(going, owner, OLD) for owner in (1, 2)] == [[], []]
    owned = census(u1=[(YOUNG, 100)] * 10)
    assert not gone(decide(owned, HOUR, 0, short=Amount(bytes=501), much=NOTHING), 1, YOUNG)


def test_a_disk_without_inodes_takes_from_whoever_has_the_most_entries() -> None:
    owned = census(u1=[(age, 1) for age in range(1, 20)], u2=[(YOUNG, 5000)])
    going = decide(owned, HOUR, 0, short=Amount(entries=5), much=Amount(10, 10**6))
    assert gone(going, 1, *range(1, 20)) == [15, 16, 17, 18, 19]
    assert not gone(going, 2, YOUNG)


@pytest.mark.parametrize("share", [Amount(entries=20, bytes=WITHOUT_END.bytes), Amount(WITHOUT_END.entries, 200)])
def test_who_has_nearly_used_up_a_share_gets_room_from_their_own(share: Amount) -> None:
    ages = list(range(61, 81))
    going = decide(census(u1=[(age, 10) for age in ages], u2=[(OLD, 10)]), HOUR, 0, share=share)
    left = len(ages) - len(gone(going, 1, *ages))
    assert 10 <= left <= 15
    assert not gone(going, 2, OLD)
    young = [(age, 10) for age in range(20)]
    assert not gone(decide(census(u1=young), HOUR, 0, share=share), 1, *range(20)), "it stays for min_age all the same"


def test_nothing_lacks_and_nothing_goes() -> None:
    going = decide(census(u1=[(OLD, 10**15)]), HOUR, 0, short=NOTHING)
    assert not gone(going, 1, OLD)
