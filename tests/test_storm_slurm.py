"""Two minutes of storm over pilots of a real Slurm: one blow of each kind. contrib/development/storm has longer ones.

$SPOOLD_TEST_SEED repeats one. Programs sleep, so this takes time and little of the CPU.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storms import rates, run
from tests.storms.blows import BLOWS
from tests.storms.field import PLAIN, Field

SEED = int(os.environ.get("SPOOLD_TEST_SEED", str(secrets.randbelow(1 << 31))))
MINUTES = 2
SUBMISSIONS = 100 * MINUTES


@pytest.fixture
def field() -> Iterator[Field]:
    place = Path(tempfile.mkdtemp(prefix="spoold-storm."))
    made = Field(place, "plain", PLAIN, None)
    try:
        yield made
    finally:
        run.after(made)
        shutil.rmtree(place)


@pytest.mark.waits
@pytest.mark.timeout(1800)
def test_each_submission_has_one_right_answer_and_nothing_is_left(field: Field) -> None:
    print(f"seed {SEED}")
    report = run.blow(field, run.Plan(SUBMISSIONS, MINUTES, SEED, each=True), print)
    assert report.faults == []
    left_out = {each.__name__ for each in BLOWS} - report.blows.keys()
    print(f"no time was left for: {', '.join(sorted(left_out)) or 'none'}")  # a slow machine is no fault
    assert report.blows
    assert run.after(field) == []


@pytest.mark.long
def test_rates_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLEEP": 0.1, "JOBS": 4, "LONG_SLEEP": 0.1, "LONG_JOBS": 4, "MANY": 2}.items():
        monkeypatch.setattr(rates, name, value)
    found = rates.measure(print)
    assert found.keys() == {"1 nodes", "2 nodes", "two nodes by one", "1 x 2", "2 x 1", "many by one"}
    assert found["2 nodes"].keys() == {"first_cold_s", "first_warm_s", "back_to_zero_s", "per_s"}
