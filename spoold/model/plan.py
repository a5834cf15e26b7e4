"""From a checked request to a build and to a job: what each needs of it, and under which limits."""

from __future__ import annotations

import msgspec

from spoold.model import ids
from spoold.model.ids import Entry
from spoold.model.job import BuildResult, Job, JobCase, Runtime
from spoold.model.limits import Limits, RequestedLimits, effective, unused_wishes
from spoold.model.submission import COMPILE_FILE, Request

MOST_NOTES = 8  # on limits of cases


def build_id_of(request: Request, runtime: Runtime) -> str | None:
    """Return the id of the build that ``request`` needs; None where its pin is not (or no longer) provided."""
    pin = runtime.nixpkgs.get(request.nixpkgs)
    return None if pin is None else ids.build_id(request.expression(), pin, runtime.system, runtime.nix)


def plan_job(
    entry: Entry, request: Request, limits: Limits, *, build: BuildResult, nixpkgs: str, owner: int
) -> tuple[Job, list[str]]:
    """Return the job, and a note for the client for each wish that the operator's limits did not allow.

    ``nixpkgs`` is the store path of the pin, ``owner`` a uid.
    """
    run, notes = effective("limits.run", request.limits.run, limits.run)
    compile_ = None
    if request.has(COMPILE_FILE):
        compile_, more = effective("limits.compile", request.limits.compile, limits.compile)
        notes = more + notes
    notes = unused_wishes(request.limits.dependencies) + notes
    cases, more = _cases(request, limits)
    notes += more
    job = Job(
        submission_id=entry.id,
        attempt=entry.attempt,
        files=request.job_files(),
        stdin=request.stdin(),
        args=request.args,
        env=request.env,
        compile=compile_,
        run=run,
        shell=build.shell,
        nixpkgs=nixpkgs,
        owner=owner,
        closure=[*build.closure, nixpkgs] if build.closure else [],  # $NIX_PATH names the pin
        cases=cases,
    )
    return job, notes


def _cases(request: Request, limits: Limits) -> tuple[list[JobCase], list[str]]:
    cases, notes = [], []
    for number, case in enumerate(request.cases):
        where = f"cases[{number}].limits"
        said = _said(case.limits)
        asked = msgspec.structs.replace(request.limits.run or RequestedLimits(), **said)
        chosen, more = effective(where, asked, limits.run)
        own = {f"{where}.{name}:" for name in said}
        notes += [note for note in more if note.partition(" ")[0] in own]
        cases.append(
            JobCase(
                name=case.name,
                stdin=request.stdin_of(case),
                args=request.args if case.args is None else case.args,
                env=request.env | case.env,
                limits=chosen,
            )
        )
    if len(notes) > MOST_NOTES:
        notes[MOST_NOTES:] = [f"cases: {len(notes) - MOST_NOTES} more limits are above this host's maximum"]
    return cases, notes


def _said(limits: RequestedLimits | None) -> dict[str, object]:
    return (
        {name: value for name, value in msgspec.structs.asdict(limits).items() if value is not None} if limits else {}
    )
