"""The doctor's check of memory and CPUs: what this host has, what jobs may take, and what the settings ask for."""

from __future__ import annotations

from collections.abc import Iterator

from spoold.config import Settings
from spoold.host import machine
from spoold.model.findings import Finding, Level, Subject
from spoold.model.limits import MIB, for_jobs, within
from spoold.sandbox.sizes import memory_for

WHAT = Subject("memory for jobs")


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield the findings. They hold for a single executor, with its engine on this host."""
    host = machine.memory()
    jobs = settings.executor.memory or for_jobs(host)
    if jobs > host:
        yield WHAT.warning(
            f"executor.memory, {_mib(jobs)}, is more than the {_mib(host)} of this host: the kernel will end processes",
            f"set executor.memory to {for_jobs(host)} at most, or to 0",
        )
    yield _slots(settings, jobs)
    yield _cpus(settings)
    yield from _limits(settings, jobs)
    yield _builds(settings, host, jobs)


def _slots(settings: Settings, jobs: int) -> Finding:
    slots = settings.executor.slots or len(machine.cpus())
    limits = within(settings.limits, jobs)
    each = memory_for(limits, limits.run.default, 0)
    seen = f"{_mib(jobs)}, {_mib(each)} a job with the default limits, {slots} slots"
    if slots * each <= jobs:
        return WHAT.fine(seen)
    return WHAT.note(
        f"{seen}: memory is enough for {max(1, jobs // each)} at once, and the other slots wait",
        "lower limits.compile.default.memory and limits.run.default.memory, or executor.slots",
    )


def _cpus(settings: Settings) -> Finding:
    what = Subject("CPUs for jobs")
    cpus = len(machine.cpus())
    slots = settings.executor.slots or cpus
    seen = f"{slots} slots on {cpus} CPUs"
    if slots <= cpus:
        return what.fine(seen)
    return what.warning(
        f"{seen}: jobs slow each other down, and a program may meet its wall-clock limit because of another job",
        f"set executor.slots to {cpus} at most, or to 0",
    )


def _limits(settings: Settings, jobs: int) -> Iterator[Finding]:
    for phase in ("compile", "run"):
        allowed, possible = getattr(settings.limits, phase), getattr(within(settings.limits, jobs), phase)
        for kind, level in (("default", Level.WARNING), ("maximum", Level.NOTE)):
            if getattr(allowed, kind) != getattr(possible, kind):
                name = f"limits.{phase}.{kind}.memory"
                size, top = getattr(allowed, kind).memory, getattr(possible, kind).memory
                detail = f"{_mib(size)} is more than a job can get on this host: it gets {_mib(top)}"
                yield Finding(level, name, detail, f"lower {name}")


def _builds(settings: Settings, host: int, jobs: int) -> Finding:
    what = Subject("memory for builds")
    builder = settings.builder
    builds = (builder.parallel + builder.slow) * builder.limits.memory
    if jobs + builds <= host:
        return what.fine(f"{_mib(builds)} at most, beside all jobs")
    return what.note(
        f"builds may take {_mib(builds)}, and jobs {_mib(jobs)}: this host has too little memory for both at once",
        "lower executor.memory to the memory that builds leave, set MemoryMax= of spoold-builder.service, or lower "
        "builder.limits.memory",
    )


def _mib(size: int) -> str:
    return f"{size // MIB} MiB"
