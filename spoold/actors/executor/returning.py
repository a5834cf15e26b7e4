"""Returning: files that came back become a part of the response, or lie beside it.

Spec: spool-layout.md, "Returned files". Those of a run are told by the response, those of a case by what came of it.
The response has contents as long as there is room. Where that is not for all, one tar has all files, those of each case
in a directory of its own.
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
    """Return ``response`` with the files of a job, and the tar of them where it has not all of their contents.

    It has ``room`` bytes of these at most.
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
    """Return what came back by where it lies in a tar."""
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
