"""Cases one after the other, and what is in the way of one of them, without an engine."""

from __future__ import annotations

import tempfile

import pytest

from spoold.host import spill
from spoold.model.errors import ClientError
from spoold.model.job import Job, JobResult
from spoold.model.response import SKIPPED_PHASE, Outcome, Phase
from spoold.sandbox.archive import Archive
from spoold.sandbox.cases import NO_ROOM, run_cases
from spoold.sandbox.checkers import Checkers
from spoold.sandbox.parts import OnPhase, Part
from tests.sandbox.conftest import make_job
from tests.sandbox.test_cases import All, with_cases

OK = Phase(outcome=Outcome.OK)


def receive(archive: Archive, size: int) -> None:
    archive.add(bytes(size))
    archive.room = size


def test_a_case_without_room_for_what_compiling_left_has_met_its_limit_of_memory() -> None:
    """It is no fault of ours, and the others go on."""

    def run(job: Job, part: Part, on_phase: OnPhase) -> JobResult:
        if part.after:
            receive(part.after, 1)
            return JobResult(compile=OK, run=SKIPPED_PHASE)
        if job.args == ["b"]:
            raise ClientError("files: they cannot be written: Cannot allocate memory")
        return JobResult(compile=SKIPPED_PHASE, run=OK)

    judge = All()
    job = with_cases(make_job("", shell="", compile_sh=""), "a", "b", "c")
    result = run_cases(job, judge, run, lambda *_: None, Checkers())
    assert (result.compile.outcome, judge.outcomes) == (Outcome.OK, [Outcome.OK, Outcome.MEMORY_LIMIT, Outcome.OK])
    assert judge.notes[1] == [f"{NO_ROOM}: files: they cannot be written: Cannot allocate memory"]


def test_a_disk_without_room_for_an_archive_is_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The submission is put back then, and loses no attempt."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match="No space left"):
        receive(Archive(""), spill.MOST + 1)
