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
    finished_phase,
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
