"""Turns a checked request into its builds and its job, with the limits of each."""

from __future__ import annotations

import msgspec

from spoold.model import ids
from spoold.model.cases import Case
from spoold.model.ids import Entry
from spoold.model.job import BuildResult, Job, JobCase, Runtime
from spoold.model.limits import Limits, PhaseLimits, RequestedLimits, effective, unused_wishes
from spoold.model.outputs import Output, Wanted
from spoold.model.submission import COMPILE_FILE, LimitRequests, Program, Request

MOST_NOTES = 8  # how many notes there are on the limits of cases
HASH = len("/nix/store/") + 33  # bytes of a store path before its name
FHS = ("-bwrap", "-fhsenv-rootfs", "-fhs", "-chrootenv")  # endings of FHS environments in nixpkgs, old and new


def builds_of(request: Request, runtime: Runtime) -> dict[str, str]:
    """Return the expressions of the builds that ``request`` needs, by their ids. The program's build comes first.

    There are none where the request's pin is not, or no longer, provided.
    """
    pin = runtime.nixpkgs.get(request.nixpkgs)
    if pin is None:
        return {}
    programs = [request, request.grader] if request.grader else [request]
    expressions = [program.expression() for program in programs]
    return {ids.build_id(each, pin, runtime.system, runtime.nix): each for each in expressions}


def plan_job(
    entry: Entry,
    request: Request,
    limits: Limits,
    *,
    build: BuildResult,
    checker: BuildResult | None = None,
    nixpkgs: str,
    owner: int,
) -> tuple[Job, list[str]]:
    """Return the job, and a note for the client for each wish that the operator's limits did not allow.

    ``build`` is the outcome of the program's build, and ``checker`` that of the build of its checker or interactor,
    where there is one that can be run. ``nixpkgs`` is the store path of the pin, ``owner`` a uid.
    """
    compile_, run, notes = _limits_of(request, request.limits, limits, "limits")
    stdin = request.stdin()
    cases, more = _cases(request, limits, stdin)
    notes = unused_wishes(request.limits.dependencies) + notes + more + _of_fhs(build)
    job = Job(
        submission_id=entry.id,
        attempt=entry.attempt,
        files=request.job_files(),
        stdin=stdin,
        args=request.args,
        env=request.env,
        compile=compile_,
        run=run,
        shell=build.shell,
        nixpkgs=nixpkgs,
        owner=owner,
        closure=_closure(build, nixpkgs),
        cases=cases,
        cases_time=limits.cases_time,
        live=request.progress,
        outputs=_wanted(request, cases, limits),
    )
    grader = request.grader
    if grader and checker and checker.shell:
        where = f"{grader.KIND}.limits"
        compile_, run, more = _limits_of(grader, grader.limits, limits, where)
        notes += unused_wishes(grader.limits.dependencies, where, but="") + more
        own = msgspec.structs.replace(
            job,
            files=grader.job_files(),
            stdin=b"",
            args=grader.args,
            env={},
            compile=compile_,
            run=run,
            shell=checker.shell,
            closure=_closure(checker, nixpkgs),
            cases=[],
            live=False,
            outputs=None,
        )
        job = msgspec.structs.replace(job, checker=own, talks=request.interactor is not None)
    return job, notes


def _of_fhs(build: BuildResult) -> list[str]:
    """Return a note where an FHS environment is among the packages: its start needs rights that no job has."""
    name = next((path[HASH:] for path in build.closure if path.endswith(FHS)), "")
    note = (
        f"cutor.nix: {name} is of an FHS environment (buildFHSEnv), which makes user namespaces and mounts when it is "
        "started; the sandbox does not allow that. Name its packages in mkShell instead"
    )
    return [note] if name else []


def _closure(build: BuildResult, nixpkgs: str) -> list[str]:
    return [*build.closure, nixpkgs] if build.closure else []  # $NIX_PATH names the pin


def _limits_of(
    program: Program, asked: LimitRequests, limits: Limits, where: str
) -> tuple[PhaseLimits | None, PhaseLimits, list[str]]:
    """Return the limits of compile.sh (None where there is none) and of run.sh, and notes on them."""
    run, notes = effective(f"{where}.run", asked.run, limits.run)
    compile_ = None
    if program.has(COMPILE_FILE):
        compile_, more = effective(f"{where}.compile", asked.compile, limits.compile)
        notes = more + notes
    return compile_, run, notes


def _cases(request: Request, limits: Limits, stdin: bytes) -> tuple[list[JobCase], list[str]]:
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
                stdin=stdin if case.inputs is None else request.stdin_of(case),
                args=request.args if case.args is None else case.args,
                env=case.env,
                limits=chosen,
                answer=len((case.expected.stdout or "").encode()) if case.expected else 0,
                outputs=_outputs(request, case),
            )
        )
    if len(notes) > MOST_NOTES:
        notes[MOST_NOTES:] = [f"cases: {len(notes) - MOST_NOTES} more limits are above this host's maximum"]
    return cases, notes


def _outputs(request: Request, case: Case) -> list[Output]:
    """Return the patterns of a case's files that come back. Those of a hidden case do not."""
    if case.hidden:
        return []
    return request.outputs if case.outputs is None else case.outputs


def _said(limits: RequestedLimits | None) -> dict[str, object]:
    return (
        {name: value for name, value in msgspec.structs.asdict(limits).items() if value is not None} if limits else {}
    )


def _wanted(request: Request, cases: list[JobCase], limits: Limits) -> Wanted | None:
    most = limits.outputs
    if not (any(case.outputs for case in cases) if cases else request.outputs):
        return None
    return Wanted(outputs=request.outputs, files=most.files, file_size=most.file_size, total=most.total)
