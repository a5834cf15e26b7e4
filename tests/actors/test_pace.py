"""How many entries an executor looks at while its slots have enough to do."""

from __future__ import annotations

import pytest

from spoold.actors.executor import pace
from spoold.actors.executor.pace import FED, LOOKS, PART, REST, Pace, Some
from spoold.model.ids import Hint
from spoold.model.states import State
from tests.actors.bench import Bench
from tests.names import named


class Time:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ready = 0

    def pace(self, slots: int = 1) -> Pace:
        return Pace(lambda: self.ready, lambda: self.now, slots)


def test_with_little_in_line_looks_never_rest() -> None:
    time = Time()
    paced = time.pace(slots=2)
    time.ready = 2 * FED - 1
    paced.looked(5.0)
    assert (paced.some(0), paced.rest) == (Some(LOOKS, pace.LONG), 0.0)


def test_with_enough_in_line_looks_take_a_small_part_of_the_time() -> None:
    time = Time()
    paced = time.pace()
    time.ready = FED
    looked = 0.0
    while time.now < 200.0:
        some = paced.some(0)
        spent = some.seconds if some.most else 0.0
        time.now += spent
        paced.looked(spent)
        looked += spent
        time.now += paced.rest
    assert looked / 100.0 == pytest.approx(1 / (1 + REST), rel=0.01)
    assert paced.some(0) == Some(LOOKS, PART)


def test_what_is_told_is_looked_at_while_looks_rest_and_does_not_make_the_rest_longer() -> None:
    time = Time()
    paced = time.pace()
    time.ready = FED
    paced.looked(1.0)
    assert paced.some(3) == Some(3, pace.LONG)
    time.now += REST / 2
    paced.looked(1.0)
    assert paced.rest == REST / 2


def test_looks_go_on_at_once_where_the_line_gets_short() -> None:
    time = Time()
    paced = time.pace()
    time.ready = FED
    paced.looked(1.0)
    time.ready = FED - 1
    assert (paced.some(0), paced.rest) == (Some(LOOKS, pace.LONG), 0.0)


def test_an_executor_rests_and_looks_at_what_it_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.drop("warm")
    bench.wait_for("warm")
    bench.sandbox.gate.clear()
    monkeypatch.setattr(pace, "REST", 1e9)
    slots = bench.settings.executor.slots
    enough = FED * slots
    many = [f"a{number}" for number in range(enough + 3 * LOOKS)]
    for name in many:
        bench.drop(name)
    line = bench.executor._line
    bench.until(lambda: line.length >= enough, bench.executor.step)
    bench.until(lambda: bench.executor.step([]) > 0, lambda: None)
    # from now on the slots take nothing more from the line
    bench.until(lambda: len(bench.names("running")) == slots, lambda: None)
    before = line.length
    for _ in range(5):
        assert bench.executor.step([]) > 0
    assert line.length == before < len(many) - slots
    bench.drop("b")
    bench.executor.step([Hint(State.NEW, named("b"))])
    assert line.length == before + 1
    bench.executor._pace._rests_until = 0.0
    monkeypatch.undo()
    bench.sandbox.gate.set()
    bench.wait_for(*many, "b")
