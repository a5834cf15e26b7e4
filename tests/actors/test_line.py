"""What an executor remembers of what waits: nothing falls out of it, and nothing stays for ever."""

from __future__ import annotations

import pytest

from spoold.actors.executor import line as lines
from spoold.actors.executor.line import FOUND, TOLD, Line, Place
from spoold.actors.executor.waits import Wait, Waits
from spoold.model.ids import Entry


def place(id_: str, attempt: int = 1) -> Place:
    return Place("new", Entry(id_, attempt))


def test_what_rested_is_not_lost_where_very_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST", 2)
    line = Line()
    line.rest(place("tried", 2), until=10.0)
    for id_ in "abc":
        line.see(place(id_), TOLD)
    seen = []
    while found := line.look(now=20.0):
        seen.append(found.place.entry.id)
    assert "tried" in seen
    assert line.names("new") == set()


def test_what_is_not_looked_at_yet_is_looked_at_owner_after_owner() -> None:
    """One owner's thousand delay another's first look by one, by whatever way they came."""
    line = Line()
    for number in range(1000):
        line.see(Place("new", Entry(f"a{number}", 1, 1001)), FOUND)
    line.see(Place("new", Entry("b", 1, 1002)), FOUND)
    line.see(Place("new", Entry("c", 1, 1003)), TOLD)
    looks = [line.look(now=0.0) for _ in range(3)]
    assert [look.place.entry.id for look in looks if look] == ["a0", "b", "c"]


def test_waits_without_an_end_are_forgotten_with_their_builds() -> None:
    waits = Waits()
    for number in range(1000):
        waits.add(Wait(Entry(f"x-{number}", 1), "build", "queued", 1e300, 1001, 1001))
        waits.end("build")
    assert waits.next_end is None
