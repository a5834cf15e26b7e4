"""From a checked request to a build and to a job: what each needs of it, and under which limits."""

from __future__ import annotations

from spoold.model import ids
from spoold.model.ids import Entry
from spoold.model.job import BuildResult, Job, Runtime
from spoold.model.limits import Limits, effective, unused_wishes
from spoold.model.submission import COMPILE_FILE, Request


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
    run, notes = effective("run", request.limits.run, limits.run)
    compile_ = None
    if request.has(COMPILE_FILE):
        compile_, more = effective("compile", request.limits.compile, limits.compile)
        notes = more + notes
    notes = unused_wishes(request.limits.dependencies) + notes
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
    )
    return job, notes
