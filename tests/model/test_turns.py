"""Owners take turns. An owner's urgent entries delay none of the others' entries."""

from __future__ import annotations

from spoold.model.turns import Turns


def emptied(turns: Turns[str]) -> list[str]:
    taken = []
    while (thing := turns.take()) is not None:
        taken.append(thing)
    assert len(turns) == 0
    return taken


def test_owners_take_turns_and_each_one_s_oldest_is_first() -> None:
    turns: Turns[str] = Turns()
    for number in range(1, 4):
        turns.add(1, f"a{number}")
    assert turns.take() == "a1"
    turns.add(2, "b1")
    turns.add(3, "c1")
    turns.add(2, "b2")
    assert emptied(turns) == ["a2", "b1", "c1", "a3", "b2"]


def test_priority_counts_among_the_things_of_one_owner_only() -> None:
    turns: Turns[str] = Turns()
    turns.add(1, "a1", priority=-5)
    turns.add(2, "b1")
    turns.add(1, "a2", priority=100)
    turns.add(1, "a3")
    assert emptied(turns) == ["a2", "b1", "a3", "a1"]


def test_one_owner_has_so_much_and_no_more() -> None:
    turns: Turns[str] = Turns(most=2)
    assert [turns.add(1, "a"), turns.add(1, "b"), turns.add(1, "c"), turns.add(2, "d")] == [True, True, False, True]
    turns.clear()
    assert turns.take() is None
    assert turns.add(1, "e")
