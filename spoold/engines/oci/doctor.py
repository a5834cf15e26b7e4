"""The doctor's look at what makes containers without a daemon: runtimes, control groups, users; and jobs on trial."""

from __future__ import annotations

from collections.abc import Iterator

from spoold.config import Settings
from spoold.engines.oci import host
from spoold.engines.oci.sandbox import OciSandbox
from spoold.host import groups, packages
from spoold.model import holes
from spoold.model.errors import OperatorError
from spoold.model.findings import Finding, Subject
from spoold.model.job import Runtime
from spoold.sandbox import trial_of_jobs

LIMITS = Subject("limits of memory and processes")
REMEDY = "see the runtime's last words above, and the executor's log"


def examine(settings: Settings, runtime: Runtime | None) -> Iterator[Finding]:
    """Yield the findings; without a ``runtime``, which a builder provides, no container is tried."""
    try:
        made = groups.settle()
    except OperatorError as error:
        yield LIMITS.refused(str(error))
        return
    yield LIMITS.fine(f"cgroup v{2 if made.unified else 1}, below this process's own group")
    yield _shares(made)
    try:
        found = host.runtimes(settings, made)
    except OperatorError as error:
        yield Subject("OCI runtime").refused(str(error))
        return
    for program in found:
        yield _version(program)
    try:
        yield _users()
    except OperatorError as error:
        yield Subject("users of containers").refused(str(error))
        return
    if runtime is None:
        yield trial_of_jobs.no_runtime()
        return
    yield from trial_of_jobs.examine(OciSandbox(trial_of_jobs.on_trial(settings), runtime), settings, runtime, REMEDY)


def _version(program: str) -> Finding:
    name, version = host.version(program)
    if not version:
        return Subject(program).unknown("the runtime does not say which version it is")
    return holes.finding(name, version, *packages.of(name))


def _shares(made: groups.Groups) -> Finding:
    what = Subject("shares of the CPU")
    if made.has("cpu"):
        return what.fine("each job is weighed as one, however many processes it has")
    return what.warning(
        "the control groups here share out no CPU time: a job with many processes takes the CPU from other jobs, which "
        "may then meet their limits of wall-clock time",
        "delegate the controller cpu to the executor's control group",
    )


def _users() -> Finding:
    what = Subject("users of containers")
    ids = host.ids()
    if ids is None:
        return what.note(
            "root in a container (the supervisor, never a job) is root on the host, with only three capabilities",
            "for one more wall, run the executor as an ordinary user with subordinate ids: see Engines in "
            "contrib/docs/operator.md",
        )
    return what.fine("root in a container is this user. Jobs run as users who own nothing on the host")
