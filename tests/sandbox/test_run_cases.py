"""Cases run one after the other, without an engine; and failures around one of them."""

from __future__ import annotations

import tempfile

import pytest
from msgspec.structs import replace

from spoold.host import spill
from spoold.host.spill import Spill
from spoold.model.errors import ClientError
from spoold.model.job import Job, JobResult
from spoold.model.outputs import Found, Output, Returned, Wanted
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
    """It is not the host's fault, and the other cases go on."""

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
    """The submission is put back, and loses no attempt."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match="No space left"):
        receive(Archive(""), spill.MOST + 1)


def test_all_cases_add_to_one_place_and_each_may_have_what_is_left() -> None:
    asked: list[Wanted | None] = []
    places: list[Spill | None] = []

    def run(job: Job, part: Part, on_phase: OnPhase) -> JobResult:
        if part.after:
            receive(part.after, 1)
            return JobResult(compile=OK, run=SKIPPED_PHASE)
        asked.append(job.outputs)
        places.append(part.contents)
        outputs = None
        if job.outputs and part.contents is not None:
            found = Found("f", 3, "", 0o644, part.contents.size)
            part.contents.add(b"abc")
            outputs = Returned([found], part.contents, [], ["a note"])
        return JobResult(compile=SKIPPED_PHASE, run=OK, outputs=outputs, notes=outputs.notes if outputs else [])

    judge, together = All(), Wanted(outputs=[], files=9, file_size=10, total=10)
    job = with_cases(make_job("", shell="", compile_sh="", outputs=together), "a", "b", "c")
    wanted = [[Output(path="f")], [], [Output(path="*")]]
    cases = [replace(case, outputs=each) for case, each in zip(job.cases, wanted, strict=True)]
    result = run_cases(replace(job, cases=cases), judge, run, lambda *_: None, Checkers())
    assert [each and (each.outputs, each.files, each.total) for each in asked] == [
        (wanted[0], 9, 10),
        None,
        (wanted[2], 8, 7),
    ]
    assert len({id(place) for place in places}) == 1
    assert {number: each.files[0].at for number, each in result.of_cases.items()} == {0: 0, 2: 3}
    assert judge.notes == [["a note"], [], ["a note"]]
    result.close()
