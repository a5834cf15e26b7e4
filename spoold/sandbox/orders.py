"""What a supervisor is told of a job: its files, its input, and the phases that it is to run."""

from __future__ import annotations

from collections.abc import Iterator

from spoold.model.job import Job, Runtime
from spoold.model.limits import PhaseLimits
from spoold.sandbox import returned, wire
from spoold.sandbox.archive import Archive
from spoold.sandbox.facts import WORDS
from spoold.sandbox.messages import Bounds, File, Order, Parcel

ENTER = "/spoold/enter.sh"  # in the sandbox
ZONES = "/etc/zoneinfo"  # in the sandbox; a C library of nixpkgs finds it by TZDIR alone
TIMES = ("time", "cpu_time")
SCRIPTS = ("compile.sh", "run.sh")


def parcel(job: Job, before: Archive | None) -> Iterator[bytes]:
    """Yield what the supervisor takes: the parcel, the work directory ``before``, the job's files, its input."""
    files = [(f.name, 0o755 if f.name in SCRIPTS else f.mode, f.content) for f in job.files]
    head = Parcel(
        files=[File(name=name.encode(), mode=mode, size=len(content)) for name, mode, content in files],
        archive=before.size if before else 0,
        stdin=len(job.stdin),
    )
    yield wire.frame(head)
    if before:
        yield from before.pieces(0, before.size)
    yield from (content for _, _, content in files)
    yield job.stdin


def order(runtime: Runtime, job: Job, name: str, limits: PhaseLimits, *, last: bool, talks: bool = False) -> Order:
    words = [
        job.shell,
        *(f"{key}={value}" for key, value in job.env.items()),
        f"./{name}.sh",
        *(job.args if name == "run" else ()),
    ]
    env = [f"PATH={runtime.coreutils}/bin:{runtime.bash}/bin", "HOME=/job", f"NIX_PATH=nixpkgs={job.nixpkgs}"]
    env += [f"TZDIR={ZONES}"] if runtime.tzdata else []
    return Order(
        argv=[word.encode() for word in (f"{runtime.bash}/bin/bash", "--norc", "--noprofile", ENTER, str(WORDS))],
        words=[word.encode() for word in words],
        env=[pair.encode() for pair in env],
        script=f"{name}.sh".encode(),
        input=int(name == "run"),
        last=int(last),
        live=int(job.live),
        talks=int(talks),
        limits=_bounds(limits),
        outputs=returned.order_of(job.outputs if name == "run" else None),
    )


def _bounds(limits: PhaseLimits) -> Bounds:
    """Return the limits that the supervisor enforces: those that ``Bounds`` has, with times in nanoseconds."""
    known = {name: getattr(limits, name) for name in Bounds.FIELDS}
    return Bounds(**known | {name: int(known[name] * 10**9) for name in TIMES})
