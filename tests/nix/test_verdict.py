"""A table of failed evaluations: whose fault each one is."""

from __future__ import annotations

import pytest

from spoold.config import NixSettings
from spoold.host.proc import Finished, Limit
from spoold.model.errors import TemporaryError
from spoold.model.job import BuildLimits
from spoold.model.response import Outcome, Stream
from spoold.nix import verdict
from spoold.nix.store import Store

NOTHING = Stream(b"", 0)
LIMITS = BuildLimits(evaluation_time=5)


def killed(limit: Limit | None, *, wall: float, cpu: float) -> Finished:
    return Finished(
        exit_code=None,
        signal="SIGKILL",
        limit=limit,
        reason="",
        wall=wall,
        cpu=cpu,
        memory=0,
        stdout=NOTHING,
        stderr=NOTHING,
    )


@pytest.mark.parametrize(
    ("finished", "outcome"),
    [
        (killed(Limit.WALL, wall=5, cpu=0), Outcome.TIME_LIMIT),
        (killed(None, wall=5, cpu=5.01), Outcome.TIME_LIMIT),
        (killed(Limit.MEMORY, wall=1, cpu=1), Outcome.MEMORY_LIMIT),
        (killed(Limit.OUTPUT, wall=1, cpu=1), Outcome.OUTPUT_LIMIT),
    ],
)
def test_limits(finished: Finished, outcome: Outcome, tmp_path: str) -> None:
    assert verdict.of_evaluation(Store(NixSettings(state=str(tmp_path))), finished, LIMITS).outcome is outcome


def test_a_kill_by_a_stranger_is_not_the_clients_fault(tmp_path: str) -> None:
    with pytest.raises(TemporaryError, match="killed"):
        verdict.of_evaluation(Store(NixSettings(state=str(tmp_path))), killed(None, wall=0.1, cpu=0.1), LIMITS)
