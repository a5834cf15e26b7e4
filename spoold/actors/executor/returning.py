"""Returning: files that came back become part of the response, or lie beside it.

Spec: spool-layout.md, "Returned files". The response tells of the files of a run. The result of a case tells of the
files of that case. The response holds contents as long as there is room. Where there is not room for all, one tar holds
all files, those of each case in a directory of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import UNSET

from spoold.model.job import JobResult
from spoold.model.outputs import Returned, directories, told
from spoold.model.response import CaseResult, Response, ReturnedFile
from spoold.spool.tar import Tar


def with_files(response: Response, result: JobResult, room: int) -> tuple[Response, Tar | None]:
    """Return ``response`` with the files of a job, and a tar of them where it does not hold all their contents.

    The response holds ``room`` bytes of contents at most.
    """
    cases = response.cases if isinstance(response.cases, list) else []
    parts = _parts(result, cases)
    files, is_all = told(parts.values(), room)
    tar = None if is_all else Tar(parts)
    if result.outputs:
        return msgspec.structs.replace(response, **_keys(result.outputs, files[0])), tar
    if result.of_cases:
        response = msgspec.structs.replace(response, cases=_with_files(cases, result.of_cases, files))
    return response, tar


def _parts(result: JobResult, cases: list[CaseResult]) -> dict[str, Returned]:
    """Return the returned files, by the directory in a tar where they lie."""
    if result.outputs:
        return {"": result.outputs}
    places = directories(case.name for case in cases)
    return {f"{places[number]}/": returned for number, returned in result.of_cases.items()}


def _with_files(
    cases: list[CaseResult], of_cases: Mapping[int, Returned], files: list[list[ReturnedFile]]
) -> list[CaseResult]:
    told_of = cases.copy()
    for (number, returned), its in zip(of_cases.items(), files, strict=True):
        told_of[number] = msgspec.structs.replace(cases[number], **_keys(returned, its))
    return told_of


def _keys(returned: Returned, files: list[ReturnedFile]) -> dict[str, object]:
    return {"outputs": files, "outputs_missing": returned.missing or UNSET}
