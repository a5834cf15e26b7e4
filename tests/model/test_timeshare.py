"""The owner who used less lately is next. Of two owners who wait, nobody gets ahead by more than a few jobs."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoold.model import timeshare
from spoold.model.timeshare import EPOCH, HALF_LIFE, LEAST, TimeShares, Use
from spoold.model.turns import Turns

A, B = 1, 2
START = 123_456_789.0  # like a monotonic clock that has run for years


@pytest.fixture(scope="module", autouse=True)
def no_credit() -> Iterator[None]:
    """Let nobody be behind by more than the jobs that run, so that the order is easy to predict."""
    with mock.patch.object(timeshare, "CREDIT", 0.0):
        yield


class Places:
    """``places`` slots, and owners whose jobs take as many seconds as their number. ``began`` has the jobs in order."""

    def __init__(self, places: int, weights: dict[int, float] | None = None, start: float = START) -> None:
        self.now = start
        self.times = TimeShares(weights)
        self.free = places
        self.began: list[tuple[int, float]] = []
        self._turns: Turns[float] = Turns()
        self._running: list[tuple[float, int, Use]] = []
        self._served: dict[int, float] = {}

    def want(self, owner: int, *seconds: float) -> None:
        for each in seconds:
            self._turns.add(owner, each)
            self.times.come(owner, self.now)
        self._fill()

    def served(self, owner: int) -> float:
        """Return the seconds that an owner has had places."""
        going_on = sum(self.now - use.began for _, _, use in self._running if use.owner == owner)
        return self._served.get(owner, 0.0) + going_on

    def run(self, seconds: float, look: Callable[[], None] = lambda: None) -> None:
        until = self.now + seconds
        while self._running and self._running[0][0] <= until:
            self.now, _, use = heapq.heappop(self._running)
            look()
            self._served[use.owner] = self._served.get(use.owner, 0.0) + self.now - use.began
            self.times.end(use, self.now)
            self.free += 1
            self._fill()
        self.now = until
        look()

    def _fill(self) -> None:
        while self.free and (owner := self._turns.first(self.times.ranks(self.now))) is not None:
            seconds = self._turns.take_from(owner)
            if not self._turns.has(owner):
                self.times.leave(owner)
            self.free -= 1
            self.began.append((owner, seconds))
            use = self.times.begin(owner, self.now)
            heapq.heappush(self._running, (self.now + seconds, len(self.began), use))


LENGTHS = st.lists(st.floats(0.3, 20), min_size=1, max_size=4)
WEIGHTS = st.sampled_from([0.5, 1.0, 3.0])


@settings(max_examples=100)
@given(
    places=st.integers(1, 4),
    lengths=st.tuples(LENGTHS, LENGTHS),
    weights=st.tuples(WEIGHTS, WEIGHTS),
    alone=st.floats(0, 100),
    others=st.lists(st.tuples(st.integers(3, 6), st.floats(0, 10), st.floats(0.01, 20)), max_size=10),
)
def test_of_two_who_wait_nobody_gets_more_than_a_few_jobs_ahead(
    places: int,
    lengths: tuple[list[float], list[float]],
    weights: tuple[float, float],
    alone: float,
    others: list[tuple[int, float, float]],
) -> None:
    """This holds for any start, any lengths of jobs, and whoever else comes and goes."""
    made = Places(places, dict(zip((A, B), weights, strict=True)))
    made.want(A, *(lengths[0] * math.ceil(300 / sum(lengths[0]))) * places)
    made.run(alone)
    made.want(B, *(lengths[1] * math.ceil(300 / sum(lengths[1]))) * places)
    before, began = (made.served(A), made.served(B)), made.now
    longest = max(*lengths[0], *lengths[1], *(length for _, _, length in others), LEAST)
    most = places * (longest + LEAST) * sum(1 / weight for weight in weights)

    def look() -> None:
        ahead = (made.served(A) - before[0]) / weights[0] - (made.served(B) - before[1]) / weights[1]
        faded = 1 + (made.now - began) * math.log(2) / HALF_LIFE
        assert abs(ahead) <= most * faded + 1e-6

    for owner, pause, length in others:
        made.run(pause, look)
        made.want(owner, length)
    made.run(60, look)


def test_who_comes_while_another_has_all_places_goes_next_until_they_had_as_much() -> None:
    made = Places(2)
    made.want(A, *[3.0] * 18)
    made.run(0.5)
    made.want(B, *[0.29] * 20)
    made.run(30)
    assert made.began == [(A, 3.0)] * 2 + [(B, 0.29)] * 20 + [(A, 3.0)] * 16


def test_places_that_free_up_at_once_do_not_all_go_to_one() -> None:
    made = Places(8)
    made.want(A, 0.05)
    made.run(1)
    made.want(3, *[1.0] * 8)
    made.want(A, *[3.0] * 8)
    made.want(B, *[3.0] * 8)
    made.run(1)
    assert [owner for owner, _ in made.began[-8:]] == [B, A] * 4


def test_who_was_away_for_long_has_earned_nothing() -> None:
    made = Places(1)
    made.want(B, 1.0)
    made.run(1)
    made.want(A, *[1.0] * 500)
    made.run(400)
    made.want(B, *[1.0] * 20)
    made.run(20)
    assert 9 <= made.served(B) - 1 <= 11


def test_who_was_away_for_a_moment_has_lost_no_debt() -> None:
    made = Places(2)
    made.want(A, 30.0, 30.0)
    made.run(0.1)
    made.want(B, *[1.0] * 100)
    made.run(31)
    made.want(A, *[1.0] * 10)
    made.run(20)
    assert made.served(A) == pytest.approx(60, abs=2), "A had 60 s at first, and B has not had as much yet"


def test_debts_fade() -> None:
    made = Places(2)
    made.want(A, 1000.0, 1000.0)
    made.run(1000)
    made.want(A, 0.0)
    made.run(100 * HALF_LIFE)
    made.want(B, *[1.0] * 20)
    made.want(A, *[1.0] * 20)
    made.run(10)
    assert made.served(B) == pytest.approx(10, abs=1)


@pytest.mark.parametrize("weight", [0.25, 3.0])
def test_weights_share_the_time(weight: float) -> None:
    made = Places(2, {A: weight})
    made.want(A, *[0.7] * 1000)
    made.want(B, *[1.3] * 1000)
    made.run(300)
    assert made.served(A) / made.served(B) == pytest.approx(weight, rel=0.05)
    made.times.set_weights({})
    before = made.served(A), made.served(B)
    made.run(200)
    assert made.served(A) - before[0] == pytest.approx(made.served(B) - before[1], rel=0.05)


def test_equals_take_turns() -> None:
    made = Places(1)
    for owner in (3, 1, 2):
        made.want(owner, *[1.0] * 3)
    made.run(9)
    assert [owner for owner, _ in made.began] == [3, 1, 2] * 3


def test_what_was_used_is_told_and_fades_by_half() -> None:
    made = Places(1)
    made.want(A, 10.0)
    made.run(5)
    assert made.times.used(made.now) == pytest.approx({A: 5.0}, rel=0.01)
    made.run(5)
    made.run(HALF_LIFE)
    assert made.times.used(made.now) == pytest.approx({A: 5.0}, rel=0.01)
    made.run(2 * EPOCH)
    assert made.times.used(made.now) == pytest.approx({A: 0.0})


def test_it_goes_on_for_months() -> None:
    """Times that grow are rebased in time, even while jobs run. Nobody's turn changes by that."""
    made = Places(2)
    made.want(A, *[300.0] * 5000)
    made.want(B, *[200.0] * 5000)
    made.run(3.3 * EPOCH)
    assert made.served(A) == pytest.approx(made.served(B), rel=0.05)
    assert all(math.isfinite(seconds) for seconds in made.times.used(made.now).values())


def test_who_is_long_gone_is_forgotten() -> None:
    """On a file server, a client may use any number of uids."""
    made = Places(4)
    for owner in range(20_000):
        made.want(owner, 0.1)
        made.run(10)
    assert len(made.times.used(made.now)) < 10_000
    made.want(A, *[1.0] * 40)
    made.want(B, *[1.0] * 40)
    made.run(10)
    assert made.served(A) == pytest.approx(made.served(B), abs=1.1)


def test_who_comes_anew_may_be_behind_by_some_short_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """These jobs run one after the other, even if together they take longer than the other owner had just now."""
    monkeypatch.setattr(timeshare, "CREDIT", 10.0)
    made = Places(2)
    made.want(A, *[3.0] * 40)
    made.run(30.5)
    before = len(made.began)
    made.want(B, *[0.6] * 20)
    made.run(30)
    owners = [owner for owner, _ in made.began]
    assert owners[before : before + 20] == [B] * 20


def test_by_going_away_nobody_may_be_behind_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeshare, "CREDIT", 10.0)
    made = Places(1)
    made.want(A, *[1.0] * 500)
    for _ in range(50):
        made.want(B, *[1.0] * 3)
        made.run(7)
    assert made.served(B) <= made.served(A) + 10 + 3
