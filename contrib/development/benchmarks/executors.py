"""Many executors with one slot each on one spool: what a job costs, by the number of executors."""

from __future__ import annotations

import time
from pathlib import Path

from msgspec.structs import replace

from benchmarks.daemons import Daemons
from benchmarks.programs import TRIVIAL
from benchmarks.served import Served
from benchmarks.ways import say
from spoold.config import ExecutorSettings

NUMBERS = (1, 2, 8, 32)
FIRST = 8  # jobs for each
CPUCLOCK_SCHED = 2  # Linux, include/linux/posix-timers_types.h


def executors(served: Served, work: Path, jobs: int, numbers: tuple[int, ...] = NUMBERS) -> dict[str, dict[str, float]]:
    """Return jobs per second and ms of the executors' CPU per job, by the number of executors. All jobs come at once.

    The spool's own executor does not run meanwhile. The first jobs of each executor are not measured. They take several
    times as long as those that follow, and of 480 jobs each of 32 executors gets only 15.
    """
    results = {}
    for number in numbers:
        say(f"{number} executors")
        served.daemons.end(["executor"])
        all_of_them = [_begun(served, work, each) for each in range(number)]
        for each in all_of_them:
            each.ready()
        served.burst([TRIVIAL] * FIRST * number)
        pids = [each.pids()["executor"] for each in all_of_them]
        before = sum(map(_cpu, pids))
        taken = served.burst([TRIVIAL] * jobs)
        spent = sum(map(_cpu, pids)) - before
        for each in all_of_them:
            each.end(["executor"])
        results[str(number)] = {"jobs_per_s": round(jobs / taken, 1), "cpu_ms": round(spent * 1000 / jobs, 3)}
    served.daemons.launch("executor")  # it answers later submissions, whenever it is ready
    return results


def _begun(served: Served, work: Path, number: int) -> Daemons:
    settings = replace(served.settings, executor=ExecutorSettings(slots=1, name=f"e{number}"))
    made = Daemons(f"executor-{number}-of-{served.name}", work, settings)
    made.begin(["executor"])
    return made


def _cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has taken, to the nanosecond, by its clock of clock_getcpuclockid(3).

    On many kernels /proc/PID/stat counts ticks, each for the process that runs at that moment. For a few short jobs it
    would count nothing.
    """
    return time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)
