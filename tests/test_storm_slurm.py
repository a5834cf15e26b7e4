"""Two minutes of storm over pilots of a real Slurm: one blow of each kind. contrib/development/storm has longer ones.

$SPOOLD_TEST_SEED repeats one. Programs sleep, so this takes time and little of the CPU. The long run also has them in
sandboxes of the engine oci, below the control groups of Slurm's jobs. contrib/development/vm runs that on cgroup v2.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spoold.config import Settings
from tests import engines
from tests.storms import rates, run
from tests.storms.blows import BLOWS
from tests.storms.field import PLAIN, Field

SEED = int(os.environ.get("SPOOLD_TEST_SEED", str(secrets.randbelow(1 << 31))))
MINUTES = 2
SUBMISSIONS = 100 * MINUTES


Made = Callable[[str, Settings], Field]


@pytest.fixture
def made() -> Iterator[Made]:
    """Yield a function that makes a field for an engine."""
    place = Path(tempfile.mkdtemp(prefix="spoold-storm."))
    place.chmod(0o711)
    fields: list[Field] = []

    def _made(engine: str, settings: Settings) -> Field:
        fields.append(Field(place, engine, settings, None))
        return fields[0]

    try:
        yield _made
    finally:
        for each in fields:
            run.after(each)
        shutil.rmtree(place)


def blow(field: Field, minutes: float) -> None:
    """Have a storm, in which each submission gets one right answer, and after which nothing is left."""
    print(f"seed {SEED}")
    report = run.blow(field, run.Plan(SUBMISSIONS, minutes, SEED, each=True), print)
    assert report.faults == []
    left_out = {each.__name__ for each in BLOWS} - report.blows.keys()
    print(f"no time was left for: {', '.join(sorted(left_out)) or 'none'}")  # a slow machine is no fault
    assert report.blows
    assert run.after(field) == []


@pytest.mark.waits
@pytest.mark.timeout(1800)
def test_each_submission_has_one_right_answer_and_nothing_is_left(made: Made) -> None:
    blow(made("plain", PLAIN), MINUTES)


@pytest.mark.long
@pytest.mark.docker
@pytest.mark.nix
@pytest.mark.timeout(1800 * engines.SLOWNESS)
def test_the_same_holds_for_sandboxes_below_the_jobs_of_slurm(made: Made, nix_settings: Settings) -> None:
    engines.need_oci()
    blow(made("oci", nix_settings), MINUTES * engines.SLOWNESS / 2 if engines.SLOWNESS > 1 else MINUTES)


@pytest.mark.long
def test_rates_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLEEP": 0.1, "JOBS": 4, "LONG_SLEEP": 0.1, "LONG_JOBS": 4, "MANY": 2}.items():
        monkeypatch.setattr(rates, name, value)
    found = rates.measure(print)
    assert found.keys() == {"1 nodes", "2 nodes", "two nodes by one", "1 x 2", "2 x 1", "many by one"}
    assert found["2 nodes"].keys() == {"first_cold_s", "first_warm_s", "back_to_zero_s", "per_s"}
