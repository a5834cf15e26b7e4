"""An executor's memory of waiting entries: it forgets none that waits, and remembers none for ever."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from unittest import mock

import pytest

from spoold.actors.executor import seen as looks
from spoold.actors.executor.line import Line
from spoold.actors.executor.ready import Place, Ready, Taken
from spoold.actors.executor.seen import FOUND, TOLD, AllSeen
from spoold.actors.executor.waits import Wait, Waits
from spoold.model import timeshare
from spoold.model.ids import Entry
from spoold.model.levels import TimedTurns
from spoold.model.states import State
from spoold.model.submission import Origin


@pytest.fixture(scope="module", autouse=True)
def no_credit() -> Iterator[None]:
    """Let nobody be behind by more than the jobs that run, so that the order is easy to predict."""
    with mock.patch.object(timeshare, "CREDIT", 0.0):
        yield


def of(uid: int) -> Origin:
    return Origin(uid=uid, gid=uid, sha256="", arrival=0.0)


def place(id_: str, attempt: int = 1) -> Place:
    return Place(State.NEW, Entry(id_, attempt))


def test_what_rested_is_not_lost_where_very_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "MOST", 2)
    all_seen = AllSeen()
    all_seen.rest(place("tried", 2), until=10.0)
    for id_ in "abc":
        all_seen.see(place(id_), TOLD)
    seen = []
    while found := all_seen.take(now=20.0):
        seen.append(found.place.entry.id)
    assert "tried" in seen
    assert all_seen.names(State.NEW) == set()


def test_entries_of_others_wait_longer_while_something_of_their_owner_is_in_line() -> None:
    in_line = {1001}
    all_seen = AllSeen(is_in_line=in_line.__contains__)
    for id_, owner in (("a", 1001), ("b", 1002), ("late", 1003)):
        all_seen.see_later(Place(State.NEW, Entry(id_, 1, owner)), until=10.0, most=1)

    def taken(now: float) -> str:
        found = all_seen.take(now)
        return found.place.entry.id if found else ""

    assert [taken(9.0), taken(10.0)] == ["", "b"]
    in_line.add(1003)
    assert taken(10.0) == "late", "it was looked at when nothing of its owner was in line"
    assert (taken(11.0), all_seen.rests_until) == ("", 11.0 + looks.AGAIN)
    assert taken(10.0 + looks.PATIENCE) == "a", "it does not wait for ever"
    assert all_seen.see_later(Place(State.NEW, Entry("c", 1, 1001)), until=10.0, most=1)
    in_line.clear()
    assert taken(10.5) == "c"


def test_what_is_not_looked_at_yet_is_looked_at_owner_after_owner() -> None:
    """An owner with a thousand entries delays another owner's first look by one, whether entries were found or told."""
    all_seen = AllSeen()
    for number in range(1000):
        all_seen.see(Place(State.NEW, Entry(f"a{number}", 1, 1001)), FOUND)
    all_seen.see(Place(State.NEW, Entry("b", 1, 1002)), FOUND)
    all_seen.see(Place(State.NEW, Entry("c", 1, 1003)), TOLD)
    looks = [all_seen.take(now=0.0) for _ in range(3)]
    assert [look.place.entry.id for look in looks if look] == ["a0", "b", "c"]


def test_waits_without_an_end_are_forgotten_with_their_builds() -> None:
    waits = Waits()
    for number in range(1000):
        waits.add(Wait(Entry(f"x-{number}", 1), "build", "queued", 1e300, of(1001)))
        waits.end("build")
    assert waits.next_end is None


ALICE, BOB = 1001, 1002


def over(waits: Waits, now: float, most: int, took: Mapping[str, float] | None = None) -> list[str]:
    """End up to ``most`` waits whose time is over. ``took`` has the seconds for each first letter."""
    found: list[str] = []
    while len(found) < most and (wait := waits.overdue(now)):
        found.append(wait.entry.id)
        waits.ended((took or {}).get(wait.entry.id[0], 0.0))
    return found


def test_waits_whose_time_is_over_end_owner_after_owner() -> None:
    """One owner's ten thousand waits delay another's by one, even if they ended first, and whichever uids they have."""
    waits = Waits(lambda uid: ALICE if uid >= 100_000 else uid)
    for number in range(10_000):
        waits.add(Wait(Entry(f"a-{number:04}", 1), "build", "queued", 1.0, of(100_000 + number)))
    for number, until in enumerate((2.0, 3.0, 99.0)):
        waits.add(Wait(Entry(f"b-{number}", 1), f"build-{number}", "queued", until, of(BOB)))
    assert over(waits, 2.0, 4) == ["a-0000", "b-0", "a-0001", "a-0002"]
    assert over(waits, 3.0, 2) == ["a-0003", "b-1"]
    waits.end("build")
    assert over(waits, 3.0, 4) == []
    assert (waits.is_any_over(3.0), waits.next_end) == (False, 99.0)


def test_a_wait_that_ended_with_its_build_meanwhile_is_not_over() -> None:
    waits = Waits()
    for name in "abc":
        waits.add(Wait(Entry(name, 1), name, "queued", 1.0, of(ALICE)))
    assert over(waits, 1.0, 1) == ["a"]
    assert waits.is_any_over(1.0)
    assert [wait.entry.id for wait in waits.end("b")] == ["b"]
    waits.add(Wait(Entry("c", 1), "c", "queued", 5.0, of(ALICE)))
    assert over(waits, 1.0, 2) == []
    assert over(waits, 5.0, 2) == ["c"]


def test_waits_that_take_long_to_end_delay_anothers_by_one() -> None:
    waits = Waits()
    for number in range(10):
        waits.add(Wait(Entry(f"a-{number}", 1), "build", "queued", 1.0, of(ALICE)))
        waits.add(Wait(Entry(f"b-{number}", 1), "build", "queued", 1.0, of(BOB)))
    assert over(waits, 1.0, 12, took={"a": 0.5, "b": 0.01}) == ["a-0", *(f"b-{number}" for number in range(10)), "a-1"]


def test_whose_entries_take_long_to_look_at_is_next_when_others_had_as_much_time() -> None:
    """Entries that rested until their attempt was due have no turns of their own."""
    all_seen = AllSeen()
    for number in range(5):
        all_seen.see(Place(State.NEW, Entry(f"large-{number}", 1, ALICE)), FOUND)
        all_seen.rest(Place(State.NEW, Entry(f"rested-{number}", 2, ALICE)), until=1.0)
        all_seen.see(Place(State.NEW, Entry(f"small-{number}", 1, BOB)), FOUND)
    order = []
    while seen := all_seen.take(now=2.0):
        order.append(seen.place.entry.id)
        all_seen.looked(0.1 if seen.place.entry.owner == ALICE else 0.001)
    assert order[1:6] == [f"small-{number}" for number in range(5)]
    rest = [id_ for id_ in order if not id_.startswith("small")]
    assert rest == [*(f"rested-{number}" for number in range(5)), *(f"large-{number}" for number in range(5))]


def test_who_comes_when_nothing_of_theirs_waits_has_saved_up_no_time() -> None:
    turns: TimedTurns[str] = TimedTurns()
    for name in ("b", "a0", "a1", "a2", "a3"):
        turns.add(BOB if name == "b" else ALICE, name)
    for seconds in (0.0, 1.0, 1.0):
        turns.take()
        turns.charge(seconds)
    for number in range(2):
        turns.add(BOB, f"b{number}")
    order = []
    while thing := turns.take():
        order.append(thing)
        turns.charge(1.0)
    assert order == ["b0", "a2", "b1", "a3"]


class Watch:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def ready(line: Line, owner: int, *names: str, attempt: int = 1) -> None:
    for name in names:
        line.ready(Ready(place(name, attempt), "build", 0, 0.0), owner, 0)


def take(line: Line) -> Taken:
    taken = line.take()
    assert taken is not None
    return taken


def name(taken: Taken) -> str:
    return taken.place.entry.id


def test_who_comes_while_another_has_all_slots_goes_next_until_they_had_as_much() -> None:
    clock = Watch()
    line = Line(clock=clock)
    ready(line, ALICE, *(f"a{number}" for number in range(18)))
    running = [take(line), take(line)]
    clock.now += 0.5
    ready(line, BOB, *(f"b{number}" for number in range(20)))
    clock.now += 2.5
    order = []
    for taken in running:
        line.ended(taken)
    for _ in range(22):
        taken = take(line)
        order.append(name(taken))
        clock.now += 0.29
        line.ended(taken)
    assert order[:20] == [f"b{number}" for number in range(20)]
    assert order[20].startswith("a")


def test_all_uids_of_a_person_are_one_owner() -> None:
    line = Line(lambda uid: ALICE if uid >= 100_000 else uid, Watch())
    for number in range(120):
        ready(line, 100_000 + number, f"a{number}")
    first = take(line)
    ready(line, BOB, "b")
    line.ended(first)
    assert name(take(line)) == "b"


def test_what_is_seen_of_a_person_takes_one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "MOST", 3)
    all_seen = AllSeen(lambda uid: ALICE if uid >= 100_000 else uid)
    for number in range(5):
        all_seen.see(place(f"a{number}"), 100_000 + number)
    all_seen.see(place("b"), BOB)
    seen = []
    while found := all_seen.take(now=0.0):
        seen.append(found.place.entry.id)
    assert seen == ["a0", "b", "a1", "a2"]


def test_what_was_tried_before_is_charged_like_all_else() -> None:
    """Otherwise an owner whose attempts fail would hold a slot for ever, beside their turns."""
    clock = Watch()
    line = Line(clock=clock)
    ready(line, ALICE, "a1", "a2", "a3", attempt=2)
    ready(line, BOB, "b1", "b2", "b3")
    order = []
    for seconds in (10, 1, 1, 1):
        taken = take(line)
        order.append(name(taken))
        clock.now += seconds
        line.ended(taken)
    assert order == ["a1", "b1", "b2", "b3"]


def test_of_one_owner_what_is_fresh_and_what_was_tried_take_turns() -> None:
    line = Line(clock=Watch())
    ready(line, ALICE, "f1", "f2")
    ready(line, ALICE, "t1", "t2", attempt=2)
    order = []
    for _ in range(4):
        taken = take(line)
        order.append(name(taken)[0])
        line.ended(taken)
    assert sorted(order[:2]) == sorted(order[2:]) == ["f", "t"]


def test_one_that_was_tried_before_goes_at_a_time_whoever_used_less() -> None:
    line = Line(clock=Watch())
    ready(line, ALICE, "t1", "t2", attempt=2)
    first = take(line)
    ready(line, BOB, "b1", "b2")
    assert [name(take(line)), name(take(line))] == ["b1", "b2"]
    line.ended(first)
    assert name(take(line)) == "t2"


def test_the_wait_for_the_engine_costs_nobody() -> None:
    clock = Watch()
    line = Line(clock=clock)
    ready(line, ALICE, "a")
    taken = take(line)
    clock.now += 1000
    line.begun(taken)
    clock.now += 1
    line.ended(taken)
    assert line.usage() == pytest.approx({ALICE: 1.0}, rel=0.01)


def test_who_used_what_is_told_while_there_is_news() -> None:
    clock = Watch()
    line = Line(clock=clock)
    assert line.usage() == {}, "an empty report replaces an earlier process's notes"
    assert line.usage() is None
    ready(line, ALICE, "a")
    taken = take(line)
    for seconds in (1, 2):
        clock.now += 1
        assert line.usage() == pytest.approx({ALICE: seconds}, rel=0.01)
    line.ended(taken)
    assert line.usage() == pytest.approx({ALICE: 2}, rel=0.01)
    assert line.usage() is None


def test_weights_can_be_changed() -> None:
    clock = Watch()
    line = Line(clock=clock)
    line.set_weights({ALICE: 3.0})
    for owner, letter in ((ALICE, "a"), (BOB, "b")):
        ready(line, owner, *(f"{letter}{number}" for number in range(40)))
    order = ""
    for weights in ({ALICE: 3.0}, {}):
        line.set_weights(weights)
        for _ in range(20):
            taken = take(line)
            order += name(taken)[0]
            clock.now += 1
            line.ended(taken)
    assert 14 <= order[:20].count("a") <= 16
    assert 9 <= order[20:].count("a") <= 11


def test_who_waits_for_room_in_the_spool_earns_no_turns_by_that() -> None:
    clock = Watch()
    full = {ALICE}
    line = Line(clock=clock, may_begin=lambda person: person not in full)
    ready(line, ALICE, *(f"a{number}" for number in range(40)))
    ready(line, BOB, *(f"b{number}" for number in range(100)))
    order = ""
    for number in range(70):
        if number == 50:
            full.clear()
        taken = take(line)
        order += name(taken)[0]
        clock.now += 1
        line.ended(taken)
    assert order[:50] == "b" * 50
    assert 9 <= order[50:].count("a") <= 11
