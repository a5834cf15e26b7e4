"""The order of the verdicts, as a table."""

from __future__ import annotations

import signal

import pytest

from spoold.model.limits import RUN_DEFAULT
from spoold.model.response import Outcome
from spoold.sandbox.messages import Done
from spoold.sandbox.verdict import judge, killed_whole


def done(status: int, *, hit: bytes = b"", oom: int = 0, total: int = 0) -> Done:
    """Return a supervisor's account."""
    return Done(
        status=status,
        time=1_500_000_000,
        cpu=250_000_000,
        memory=1000,
        files=0,
        entries=0,
        full=[],
        left=0,
        unseen=0,
        oom=oom,
        hit=hit,
        clean=1,
        stdout=0,
        stdout_total=total,
        stderr=0,
        stderr_total=0,
        obstacles=[],
    )


KILLED = int(signal.SIGKILL)


@pytest.mark.parametrize(
    ("account", "outcome", "name", "code"),
    [
        (done(0), Outcome.OK, "", 0),
        (done(3 << 8), Outcome.NONZERO_EXIT, "", 3),
        (done(0, oom=1), Outcome.MEMORY_LIMIT, "", 0),
        (done(KILLED, hit=b"time", oom=1), Outcome.MEMORY_LIMIT, "SIGKILL", None),
        (done(KILLED, hit=b"memory"), Outcome.MEMORY_LIMIT, "SIGKILL", None),
        (done(KILLED, hit=b"time"), Outcome.TIME_LIMIT, "SIGKILL", None),
        (done(KILLED, hit=b"cpu"), Outcome.CPU_LIMIT, "SIGKILL", None),
        (done(KILLED, hit=b"cancel"), Outcome.CANCELLED, "SIGKILL", None),
        (done(KILLED, hit=b"cancel", oom=1), Outcome.MEMORY_LIMIT, "SIGKILL", None),
        (done(KILLED, hit=b"output"), Outcome.OUTPUT_LIMIT, "SIGKILL", None),
        (done(0, hit=b"output", total=10**9), Outcome.OUTPUT_LIMIT, "", 0),
        (done(0, hit=b"file"), Outcome.FILE_LIMIT, "", 0),
        (done(signal.SIGXFSZ, hit=b"file"), Outcome.FILE_LIMIT, "SIGXFSZ", None),
        (done(0, hit=b"cpu"), Outcome.CPU_LIMIT, "", 0),
        (done(signal.SIGXCPU), Outcome.SIGNALLED, "SIGXCPU", None),
        (done(signal.SIGXFSZ), Outcome.SIGNALLED, "SIGXFSZ", None),
        (done((128 + signal.SIGXFSZ) << 8), Outcome.SIGNALLED, "SIGXFSZ", 153),
        (done((128 + signal.SIGXCPU) << 8), Outcome.SIGNALLED, "SIGXCPU", 152),
        (done((128 + signal.SIGKILL) << 8), Outcome.SIGNALLED, "SIGKILL", 137),
        (done(124 << 8), Outcome.NONZERO_EXIT, "", 124),
        (done((128 + signal.SIGSEGV) << 8), Outcome.SIGNALLED, "SIGSEGV", 139),
        (done((128 + signal.SIGTERM) << 8), Outcome.NONZERO_EXIT, "", 143),
        (done(255 << 8), Outcome.NONZERO_EXIT, "", 255),
        (done(KILLED), Outcome.SIGNALLED, "SIGKILL", None),
        (done(signal.SIGSEGV | 0x80), Outcome.SIGNALLED, "SIGSEGV", None),
        (done(40), Outcome.SIGNALLED, f"SIGRTMIN+{40 - signal.SIGRTMIN}", None),
        (done(-1, hit=b"time"), Outcome.TIME_LIMIT, "SIGKILL", None),
        (done(0, total=10**9), Outcome.OK, "", 0),
    ],
)
def test_order(account: Done, outcome: Outcome, name: str, code: int | None) -> None:
    phase = judge(account, b"", b"", RUN_DEFAULT)
    assert (phase.outcome, phase.signal, phase.exit_code) == (outcome, name, code)
    assert (phase.time, phase.cpu_time) == (1.5, 0.25)


def test_a_memory_limit_was_reached() -> None:
    assert judge(done(0, oom=1), b"", b"", RUN_DEFAULT).memory == RUN_DEFAULT.memory
    assert killed_whole(RUN_DEFAULT, 2.0).outcome is Outcome.MEMORY_LIMIT


def test_a_limit_that_the_verdict_does_not_know_is_a_bug_and_not_the_jobs_end() -> None:
    with pytest.raises(AssertionError):
        judge(done(KILLED, hit=b"another"), b"", b"", RUN_DEFAULT)
