"""Slurm: which jobs of ours there are, and how one is submitted and cancelled, by Slurm's own commands.

Theory of operation. The commands are the interface that does not change: squeue's output by fields has been the same
for ten years. Its JSON changes with each release, and a library is bound to one release. Each call is bounded in time.
Callers get None where Slurm does not answer, and then know nothing: a job that is not listed may well run. Names of
jobs, not ids, tell which pilot is which, since a name outlives the process that submitted it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from spoold.host import proc
from spoold.host.log import Log
from spoold.model.errors import OperatorError, TemporaryError

log = Log("slurm")
PATIENCE = 30.0  # seconds for one command: slurmctld may be busy, or be starting
BOUNDS = proc.Bounds(wall=PATIENCE, stdout=16 << 20, stderr=4096)
FIELDS = "%i|%T|%j|%r"  # a job's name may have a bar in it, but none of ours has
ID = re.compile(r"[0-9]+")
VARIABLES = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}


PASSED_ON = ("PATH", "SLURM_CONF")  # variables of our own environment


def passed_on() -> dict[str, str]:
    """Return the variables of our own environment that the commands need."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}


class JobState(StrEnum):
    """How far a job is, as far as it matters here."""

    WAITS = "waits"
    RUNS = "runs"
    LEAVES = "leaves"  # it does not run any more, but its node is not free yet
    ENDED = "ended"


OF_SLURM = {
    "PENDING": JobState.WAITS,
    "REQUEUED": JobState.WAITS,
    "REQUEUE_HOLD": JobState.WAITS,
    "REQUEUE_FED": JobState.WAITS,
    "SPECIAL_EXIT": JobState.WAITS,
    "RESV_DEL_HOLD": JobState.WAITS,
    "CONFIGURING": JobState.RUNS,
    "RUNNING": JobState.RUNS,
    "SUSPENDED": JobState.RUNS,
    "STOPPED": JobState.RUNS,
    "RESIZING": JobState.RUNS,
    "SIGNALING": JobState.RUNS,
    "COMPLETING": JobState.LEAVES,
    "STAGE_OUT": JobState.LEAVES,
}  # jobs in all other states have ended


class Job(NamedTuple):
    """A job. ``reason`` is why it waits, in Slurm's words."""

    id: int
    name: str
    state: JobState
    reason: str = ""


class Slurm:
    """Slurm's commands, found and run with these ``variables`` of the environment."""

    def __init__(self, variables: dict[str, str]) -> None:
        self._variables = VARIABLES | variables

    def jobs(self, user: int) -> list[Job] | None:
        """Return the jobs of a user, also those that ended a while ago; None where Slurm does not answer."""
        said = self._run("squeue", "--noheader", "--states=all", f"--user={user}", f"--format={FIELDS}")
        if said is None:
            return None
        found = [_job(line) for line in said.splitlines() if line.strip()]
        if None in found:
            log.error("squeue did not print a list of jobs; nothing is done", said=said[:200])
            return None
        return [each for each in found if each is not None]

    def submit(self, name: str, options: Sequence[str], command: str) -> int | None:
        """Submit a job that runs ``command`` in a shell; return its id, None where it is not known to be there."""
        said = self._run("sbatch", "--parsable", f"--job-name={name}", *options, f"--wrap={command}")
        match = ID.match(said or "")
        return int(match[0]) if match else None

    def cancel(self, job: Job) -> bool:
        """Cancel a job; one that waits is cancelled only while it waits. Tell whether Slurm took the order."""
        only = ("--state=PENDING",) if job.state is JobState.WAITS else ()
        return self._run("scancel", *only, str(job.id)) is not None

    def configuration(self) -> dict[str, str] | None:
        """Return the settings of the cluster; None where Slurm does not answer."""
        said = self._run("scontrol", "show", "config")
        if said is None:
            return None
        pairs = (line.partition("=") for line in said.splitlines() if "=" in line)
        return {name.strip(): value.strip() for name, _, value in pairs}

    def partitions(self) -> list[dict[str, str]] | None:
        """Return the settings of each partition; None where Slurm does not answer."""
        said = self._run("scontrol", "--oneliner", "show", "partition")
        if said is None:
            return None
        lines = (line.split() for line in said.splitlines())
        return [dict(word.partition("=")[::2] for word in words) for words in lines if words]

    def _run(self, *argv: str) -> str | None:
        program = shutil.which(argv[0], path=self._variables["PATH"]) or argv[0]
        try:
            done = proc.run([program, *argv[1:]], BOUNDS, env=self._variables)
        except (OperatorError, TemporaryError) as error:
            log.error("a command of Slurm cannot be run", command=argv[0], error=error)
            return None
        if not done.ok:
            said = done.stderr.data.decode(errors="replace").strip() or f"it ended with {done.exit_code or done.limit}"
            log.error("a command of Slurm failed", command=argv[0], error=said[:500])
            return None
        return done.stdout.data.decode(errors="replace")


def _job(line: str) -> Job | None:
    parts = line.strip().split("|", 3)
    if len(parts) != 4 or not ID.match(parts[0]):
        return None
    match = ID.match(parts[0])
    assert match is not None  # noqa: S101 - for mypy
    return Job(int(match[0]), parts[2], OF_SLURM.get(parts[1], JobState.ENDED), parts[3])
