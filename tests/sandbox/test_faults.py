"""The blame when something fails around a job, without an engine.

Only the job's own actions count for the job.
"""

from __future__ import annotations

from typing import Any

import pytest

from spoold.sandbox.messages import Message
from spoold.sandbox.runner import Runner
from spoold.sandbox.stream import BrokenError


def test_a_bug_between_two_jobs_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        """A stream to a supervisor that failed after its last job."""

        def arrived(self, _: type[Message]) -> Message:
            raise BrokenError("left out\n  cell.c:1")

    transport: Any = type("Carrier", (), {"stream": Failing()})
    plan: Any = None
    runner = Runner(transport, plan)
    runner.due = True
    assert not runner.alive()
    assert "a supervisor failed between two jobs" in caplog.text
    assert "cell.c:1" in caplog.text
