"""Responses say what happened: encodings, truncation, verdicts, limits."""

from __future__ import annotations

import pytest

from spoold.model.response import (
    PENDING_PHASE,
    SKIPPED_PHASE,
    Outcome,
    Phase,
    Response,
    Status,
    Stream,
    begun,
    finished_phase,
    moment,
    of_dependencies,
    skip_pending,
    verdict,
)

NOTHING = Stream(b"", 0)


def phase(outcome: Outcome, stdout: Stream = NOTHING) -> Phase:
    return finished_phase(stdout=stdout, stderr=Stream(b"", 0), time=1, outcome=outcome, exit_code=0)


@pytest.mark.parametrize(
    ("data", "total", "text", "encoding", "truncated"),
    [
        (b"hi\n", 3, "hi\n", "utf8", False),
        (b"\xff\xfe", 2, "//4=", "base64", False),
        (b"a\0b", 3, "a\0b", "utf8", False),
        (b"caf\xc3", 100, "caf", "utf8", True),
        (b"\xe2\x82", 100, "", "utf8", True),
        (b"a\xf0\x9f\x98", 4, "YfCfmA==", "base64", False),
        (b"\xff\xfe\xc3", 9, "//4=", "base64", True),
        ("né".encode(), 50, "né", "utf8", True),
    ],
)
def test_streams(data: bytes, total: int, text: str, encoding: str, truncated: bool) -> None:
    made = phase(Outcome.OK, Stream(data, total))
    assert (made.stdout, made.stdout_encoding, made.stdout_truncated) == (text, encoding, truncated)
    assert made.stdout_bytes == total


@pytest.mark.parametrize(
    ("compiled", "ran", "status"),
    [
        (SKIPPED_PHASE, phase(Outcome.OK), Status.COMPLETED),
        (phase(Outcome.OK), phase(Outcome.OK), Status.COMPLETED),
        (phase(Outcome.NONZERO_EXIT), SKIPPED_PHASE, Status.COMPILE_FAILED),
        (phase(Outcome.MEMORY_LIMIT), SKIPPED_PHASE, Status.COMPILE_FAILED),
        (phase(Outcome.OK), phase(Outcome.TIME_LIMIT), Status.RUN_FAILED),
        (SKIPPED_PHASE, phase(Outcome.SIGNALLED), Status.RUN_FAILED),
        (SKIPPED_PHASE, phase(Outcome.INTERNAL_ERROR), Status.INTERNAL_ERROR),
    ],
)
def test_verdicts(compiled: Phase, ran: Phase, status: Status) -> None:
    assert verdict(compiled, ran) is status


def test_only_what_never_ran_is_skipped() -> None:
    made = skip_pending(Response(status=Status.COMPILE_FAILED, compile=phase(Outcome.NONZERO_EXIT)))
    assert made.compile.outcome is Outcome.NONZERO_EXIT
    assert made.run == SKIPPED_PHASE
    assert PENDING_PHASE.stdout == PENDING_PHASE.time == ""


@pytest.mark.parametrize("cached", [False, True])
def test_a_build_that_was_not_done_through_a_fault_of_ours_has_all_keys_of_a_phase(*, cached: bool) -> None:
    told = of_dependencies(Phase(stderr="é gave up\n", outcome=Outcome.INTERNAL_ERROR), cached=cached)
    assert (told.time, told.exit_code, told.cached, told.outcome) == (0.0, None, cached, Outcome.INTERNAL_ERROR)
    assert (told.stderr, told.stderr_bytes, told.stdout_bytes) == ("é gave up\n", 11, 0)


def test_moments_are_in_utc_and_to_the_millisecond() -> None:
    assert moment(0) == "1970-01-01T00:00:00.000Z"
    assert moment(1_795_973_220.9876) == "2026-11-29T17:27:00.987Z"


@pytest.mark.parametrize(
    ("built", "waits"),
    [(None, (0.0, 5.5)), (102.25, (2.25, 3.25)), (99.0, (0.0, 5.5)), (106.0, (6.0, 0.0))],
    ids=["there already", "built meanwhile", "clocks that differ", "built later than begun"],
)
def test_what_a_job_waited_for(built: float | None, waits: tuple[float, float]) -> None:
    response = begun(Response(), submitted=100.0, built=built, started=105.5)
    assert (response.build_wait, response.queue_wait) == waits
    assert response.started == "1970-01-01T00:01:45.500Z"
