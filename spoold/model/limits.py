"""Limits: those that a request asks for, those that the operator allows, and those that a phase gets.

Spec: spool-layout.md, "Limits".
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec.structs import replace

from spoold.model.setting import setting

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

LEAST_RESERVE = 512 * MIB  # of a host's memory, for everything except jobs
# The most that a container needs beside its job: for its supervisor, the job's files and output, and the kernel.
BESIDE = 112 * MIB
LEAST = 16 * MIB  # for a job: with less, no program starts
WALL = 2  # seconds of time for one of cpu_time, if only that is asked for: neighbours have their share
# Descriptors of all processes of a phase together. This is also the most times that they can wait for one timer by
# poll(2). One interrupt wakes all waits, and its time is charged to the process that happens to run. With a million
# waits each interrupt took 17 ms.
DESCRIPTORS = 64 * 1024

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(gt=0)]
AtOutputLimit = Literal["continue", "end"]
WORDS = ("on_output_limit",)  # a limit that is a choice has no maximum


class PhaseLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of one phase (``dependencies``, ``compile`` or ``run``)."""

    time: Annotated[Seconds, setting("wall-clock time", "seconds")]
    cpu_time: Annotated[Seconds, setting("CPU time of the phase's processes together", "seconds")]
    memory: Annotated[
        Count, setting("all memory of these processes together, files in the work directory included", "bytes")
    ]
    stdout: Annotated[Count, setting("how much of standard output is kept", "bytes")]
    stderr: Annotated[Count, setting("how much of standard error is kept", "bytes")]
    processes: Annotated[Count, setting("how many processes and threads there may be at once")]
    file_size: Annotated[Count, setting("the size of one file", "bytes")]
    open_files: Annotated[Count, setting("how many descriptors one process may have")]
    stack: Annotated[Count, setting("the stack of one process", "bytes")] = 64 * MIB
    on_output_limit: Annotated[
        AtOutputLimit,
        setting(
            "what happens to a phase that writes more than stdout or stderr allow: continue drops the rest, end ends "
            "the phase. In a maximum this has no effect"
        ),
    ] = "continue"


class RequestedLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The limits that a client asks for in one phase. ``None`` means the operator's default."""

    time: Seconds | None = None
    cpu_time: Seconds | None = None
    memory: Count | None = None
    stdout: Count | None = None
    stderr: Count | None = None
    processes: Count | None = None
    file_size: Count | None = None
    open_files: Count | None = None
    stack: Count | None = None
    on_output_limit: AtOutputLimit | None = None


COMPILE_DEFAULT = PhaseLimits(
    time=30,
    cpu_time=30,
    memory=1 * GIB,
    stdout=1 * MIB,
    stderr=1 * MIB,
    processes=128,
    file_size=1 * GIB,
    open_files=256,
)
COMPILE_MAXIMUM = replace(
    COMPILE_DEFAULT,
    time=300,
    cpu_time=300,
    memory=8 * GIB,
    stdout=16 * MIB,
    stderr=16 * MIB,
    processes=1024,
    file_size=8 * GIB,
    open_files=1024,
    stack=8 * GIB,
)
RUN_DEFAULT = replace(COMPILE_DEFAULT, time=20, cpu_time=10, memory=512 * MIB, file_size=512 * MIB)
RUN_MAXIMUM = replace(COMPILE_MAXIMUM, time=600, cpu_time=600)


class PhaseRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of a phase where a request asks for none, and the most that a request can ask for."""

    default: PhaseLimits
    maximum: PhaseLimits


class OutputLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits on the files that a request gets back from its run, or from all its cases together."""

    files: Annotated[int, setting("how many files may come back", ge=1, le=4096)] = 64
    file_size: Annotated[int, setting("the size of one file", "bytes", ge=1)] = 4 * MIB
    total: Annotated[int, setting("the size of all files together", "bytes", ge=1)] = 16 * MIB
    inline: Annotated[
        int,
        setting(
            "how much of the files the response itself contains; if there is more, a tar beside the response has all "
            "of it",
            "bytes",
            ge=0,
        ),
    ] = 1 * MIB


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The operator's limits for jobs."""

    compile: PhaseRange = PhaseRange(default=COMPILE_DEFAULT, maximum=COMPILE_MAXIMUM)
    run: PhaseRange = PhaseRange(default=RUN_DEFAULT, maximum=RUN_MAXIMUM)
    work_size: Annotated[
        int,
        setting(
            "how much /job, /tmp and /dev/shm of a job may each hold, within its memory limit; 0 means the largest "
            "memory limit",
            "bytes",
            ge=0,
        ),
    ] = 0
    work_inodes: Annotated[int, setting("how many files and directories each of these may have", ge=1)] = 262144
    outputs: OutputLimits = OutputLimits()

    kept: Annotated[
        int,
        setting("how much compile.sh may leave in the work directory of a submission with cases", "bytes", ge=0),
    ] = 256 * MIB
    cases_time: Annotated[
        float,
        setting(
            "for how long further cases of one submission are started, with their checks; the cases that are left are "
            "skipped",
            "seconds",
            gt=0,
        ),
    ] = 1800.0

    @property
    def most(self) -> int:
        """Return the most bytes that a job may have in one of its phases, the files that compile.sh left included."""
        return max(self.compile.maximum.memory, self.run.maximum.memory)

    @property
    def room(self) -> int:
        """Return the bytes that each of a job's file systems in memory may hold."""
        return self.work_size or self.most


def for_jobs(host: int) -> int:
    """Return the bytes of a host's memory that all jobs may take together, if the operator sets no number.

    The rest is for the daemons, the engine, the waiting containers, and the cached pages of the store. Without these
    pages each start of a program reads the disk.
    """
    return host - min(host // 2, max(host // 10, LEAST_RESERVE))


def within(limits: Limits, memory: int) -> Limits:
    """Return ``limits`` with no memory above what one job can get, if all jobs may take ``memory`` bytes together."""
    top = max(LEAST, memory - BESIDE)

    def cut(allowed: PhaseRange) -> PhaseRange:
        default, most = (
            msgspec.structs.replace(each, memory=min(each.memory, top)) for each in (allowed.default, allowed.maximum)
        )
        return PhaseRange(default=default, maximum=most)

    return msgspec.structs.replace(limits, compile=cut(limits.compile), run=cut(limits.run))


def unused_wishes(asked: RequestedLimits | None, where: str = "limits", *, but: str = "time") -> list[str]:
    """Return a note for each limit of the phase ``dependencies`` that was asked for and has no effect.

    A build is for all clients that want it, so one client's wish bounds only how long that client waits. ``but`` is the
    one limit that gets no note. ``where`` is the place of the limits in the request.
    """
    wishes = [] if asked is None else [name for name in asked.__struct_fields__ if getattr(asked, name) is not None]
    return [
        f"{where}.dependencies.{name}: builds are bounded by this host's own limits, so this one was not used"
        for name in wishes
        if name != but
    ]


def time_for(cpu_time: float, most: float) -> float:
    """Return the seconds of wall-clock time that go with a limit of CPU time, where the request sets no other."""
    return min(WALL * cpu_time, most)


def effective(where: str, asked: RequestedLimits | None, allowed: PhaseRange) -> tuple[PhaseLimits, list[str]]:
    """Return the limits that a phase runs under, and a note for each wish that was cut to the operator's maximum.

    ``where`` is the place in the request that asks for them. With many processes each gets fewer descriptors, see
    ``DESCRIPTORS``. The operator's defaults may go beyond that.
    """
    if asked is None:
        return allowed.default, []
    chosen, notes = msgspec.structs.asdict(allowed.default), []
    for name in PhaseLimits.__struct_fields__:
        wish, top = getattr(asked, name), getattr(allowed.maximum, name)
        if name == "memory" and wish is not None and wish < MIB:
            notes.append(f"{where}.memory: {wish} is less than 1 MiB; the unit is bytes")
        if wish is None:
            continue
        chosen[name] = wish
        if name not in WORDS and wish > top:
            chosen[name] = top
            notes.append(f"{where}.{name}: {wish} is above this host's maximum; {top} was used")
    if asked.time is None and asked.cpu_time is not None:
        chosen["time"] = time_for(chosen["cpu_time"], allowed.maximum.time)
    elif asked.cpu_time is None and asked.time is not None:
        chosen["cpu_time"] = min(chosen["cpu_time"], chosen["time"])
    default = allowed.default
    together = max(DESCRIPTORS, default.processes * default.open_files)
    most = max(1, int(together // chosen["processes"]))
    if chosen["open_files"] > most:
        notes.append(
            f"{where}.open_files: {chosen['open_files']} for each of {chosen['processes']} processes is above "
            f"this host's maximum; {most} was used"
        )
        chosen["open_files"] = most
    return msgspec.convert(chosen, PhaseLimits), notes
