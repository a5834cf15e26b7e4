"""How large a sandbox is: what it may take of memory and processes, for a phase or for all of a job.

All waiting sandboxes have one size, which is enough for either phase with the default limits. Where a request asks for
another limit, the sandbox's own limits are changed just before the phase. They bound what a job can take from others,
and leave room for all that is not the job's. ``inside/pages.c`` measures whether a phase held more than it may.

The files of a job lie in memory, and so does what its processes share. A waiting sandbox knows no job yet, so its file
systems are as large as any job may ask for (``Limits.room``). Their pages are charged to the sandbox like all other
memory, so the job's limit bounds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from spoold.config import Settings
from spoold.model.job import Job, Runtime
from spoold.model.limits import KIB, MIB, Limits, PhaseLimits

SUPERVISOR_MEMORY = 16 * MIB
ROUND = 8 * MIB
# What the kernel needs for a job's processes: page tables of eight processes that each map all of the memory, stacks
# and the like.
PAGE_TABLES, EACH_PROCESS, MOST_KERNEL = 1 / 64, 64 * KIB, 32 * MIB
OWN_KERNEL = 512  # threads that a runtime with a kernel of its own needs for that kernel
LAID = 2  # times what may be kept: the archive is still there while its files are unpacked
PLACES = 3  # file systems in memory for each job, see ``inside/room.c``


@dataclass(frozen=True)
class Size:
    """The sandbox's own limits. They hold for the supervisor too, so they are a little above the job's.

    A sandbox that is ``halved`` has half the share of the CPU that others have.
    """

    memory: int
    processes: int
    halved: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all sandboxes of an engine have in common."""

    settings: Settings
    runtime: Runtime
    resizable: bool = True  # whether limits of a running sandbox can be changed

    def size(self, limits: PhaseLimits, beside: int = 0) -> Size:
        """Return the size of a container for a phase, see :class:`Size`.

        Where the operator's defaults set the memory, compile and run get the same size, the larger of the two. To
        change it in between would take longer than most runs do. The supervisor holds each phase to its own limit.
        """
        others = (3 if self.cells else 1) + (0 if self.resizable else OWN_KERNEL)
        return Size(memory_for(self.settings.limits, limits, beside), limits.processes + others)

    def size_for_all(self, job: Job, beside: int = 0, *, halved: bool = False) -> Size:
        """Return a size that is enough for each phase of a job, for a container whose size cannot be changed.

        ``beside`` is the bytes of memory that are taken otherwise before anything of the job runs.
        """
        sizes = [self.size(limits, held(job) + beside) for limits in (job.compile, job.run) if limits is not None]
        return Size(
            min(self.most(job, beside), max(size.memory for size in sizes)),
            max(size.processes for size in sizes),
            halved,
        )

    def most(self, job: Job, beside: int = 0) -> int:
        """Return the bytes that a container may have for a job: what was counted for it, even under earlier limits."""
        return job.memory or asked(self.settings.limits, job) + beside

    @property
    def recycled(self) -> bool:
        """Tell whether containers serve many jobs."""
        return self.settings.sandbox.mode == "recycled"

    @property
    def cells(self) -> bool:
        """Tell whether each job is in a cell inside its container, see ``inside/cell.c``."""
        return self.recycled


Planned = TypeVar("Planned", bound=Plan)


def memory_for(limits: Limits, phase: PhaseLimits, beside: int) -> int:
    """Return the bytes that a container has for a phase, under the operator's ``limits``.

    ``beside`` is the bytes of files and input, which lie in memory as well. The result is rounded, so that jobs with
    the default limits share one size, which a waiting container can already have.
    """
    defaults = {limits.compile.default.memory, limits.run.default.memory}
    least = max(defaults) if phase.memory in defaults else 0
    kernel = min(MOST_KERNEL, int(max(phase.memory, least) * PAGE_TABLES) + phase.processes * EACH_PROCESS)
    own = SUPERVISOR_MEMORY + phase.stdout + phase.stderr + kernel
    return max(phase.memory + _rounded(own + beside), least + _rounded(own))


def _rounded(size: int) -> int:
    return -(-size // ROUND) * ROUND


def asked(limits: Limits, job: Job) -> int:
    """Return the bytes that the containers of ``job`` have at one time, at most."""
    if job.cases:
        both = (_of_cases(limits, job), _of_checker(limits, job))
        return sum(both) if job.talks else max(both)  # an interactor has its container at the same time
    if job.compile is None:
        return memory_for(limits, job.run, held(job))
    # The most that compile.sh can leave as files in memory. ``limits.most`` bounds both phases, so where the files take
    # more than that leaves free, the run has less than its limit.
    left = min(job.compile.memory, PLACES * limits.room, max(0, limits.most - job.run.memory))
    return max(memory_for(limits, job.compile, held(job)), memory_for(limits, job.run, held(job) + left))


def _of_cases(limits: Limits, job: Job) -> int:
    left = _laid(limits, job)
    each = [memory_for(limits, case.limits, held(job.of_case(case)) + left) for case in job.cases]
    return max(each if job.compile is None else [*each, memory_for(limits, job.compile, held(job))])


def _of_checker(limits: Limits, job: Job) -> int:
    """Return the bytes of a container of the checker. Input, answer and output lie in it too, and it may read them."""
    checker = job.checker
    if checker is None:
        return 0
    given = max(len(case.stdin) + case.answer + (0 if job.talks else 2 * case.limits.stdout) for case in job.cases)
    run = memory_for(limits, checker.run, held(checker) + _laid(limits, checker) + given)
    return run if checker.compile is None else max(run, memory_for(limits, checker.compile, held(checker)))


def _laid(limits: Limits, job: Job) -> int:
    """Return the bytes of memory that are needed, at most, to unpack what compile.sh left."""
    return 0 if job.compile is None else LAID * min(job.compile.memory, limits.kept)


def held(job: Job) -> int:
    """Return the bytes of memory that a job's files and input take before anything of it runs."""
    return len(job.stdin) + sum(len(file.content) for file in job.files)
