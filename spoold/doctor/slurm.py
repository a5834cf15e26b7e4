"""The doctor's check of Slurm, where the settings have pools: does it answer, and do pilots get the time to drain?"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from spoold.config import Settings
from spoold.model.findings import Finding, Subject
from spoold.model.scaling import MARGIN, PoolSettings
from spoold.slurm import Slurm, passed_on

SPARE = 5.0  # seconds between the end of a drain and SIGKILL
LONG = 300.0  # seconds until Slurm counts a lost node as lost; until then it shows the node's jobs as running
SHORT = 60.0  # seconds: a pilot that takes jobs for less is hardly worth its start
BATCH_DELAY = 3  # seconds, Slurm's default
SIGNALLED = "preempt_send_user_signal"


def examine(settings: Settings, slurm: Slurm | None = None) -> Iterator[Finding]:
    """Yield the findings, none where no pool is set."""
    if not settings.scale.pools:
        return
    slurm = slurm or Slurm(passed_on())
    found = slurm.configuration()
    what = Subject("Slurm")
    if found is None:
        yield what.refused(
            "scontrol does not answer", "install slurm-client here, and check that slurmctld and munge run"
        )
        return
    yield what.fine(f"{found.get('ClusterName', 'a cluster')} answers")
    if os.geteuid() == 0 and found.get("DisableRootJobs", "").lower() == "yes":
        yield Subject("Slurm's DisableRootJobs").note("root may not submit jobs", "run `spoold scale` as its own user")
    yield _drains(settings, _seconds(found.get("KillWait", "")))
    timeout = _seconds(found.get("SlurmdTimeout", ""))
    if timeout is not None and timeout >= LONG:
        lease = settings.lease.limit
        yield Subject("Slurm's SlurmdTimeout").note(
            f"{timeout:.0f} s; pilots of a lost node are replaced after {lease:g} s, and count in their pool until then"
        )
    yield from _delay(found)
    yield from _groups(settings, found)
    if _preempts(found) and SIGNALLED not in found.get("SlurmctldParameters", ""):
        yield Subject("preemption").warning(
            "pilots get no signal before their grace is over, so a job that runs loses an attempt",
            f"set SlurmctldParameters={SIGNALLED}",
        )
    for name, pool in settings.scale.pools.items():
        if pool.lifetime < SHORT:
            yield Subject(f"time of pool {name}").warning(
                f"with time {pool.time:g} s and drain {pool.drain:g} s a pilot takes jobs for {pool.lifetime:g} s",
                f"set scale.pools.{name}.time to {pool.notice + MARGIN + SHORT:.0f} or more",
            )
    partitions = slurm.partitions()
    if partitions is not None:
        for name, pool in settings.scale.pools.items():
            yield from _partition(name, pool, partitions, preempts=_preempts(found))


def _delay(found: dict[str, str]) -> Iterator[Finding]:
    """Check how long Slurm lets a pilot wait on an idle cluster; see slurm.conf(5)."""
    match = re.search(r"\bbatch_sched_delay=(\d+)", found.get("SchedulerParameters", ""))
    seconds = int(match[1]) if match else BATCH_DELAY
    if seconds > 0:
        yield Subject("Slurm's SchedulerParameters").note(
            f"Slurm looks for a node up to {seconds} s after a pilot was submitted, so first answers come that late",
            "set SchedulerParameters=batch_sched_delay=0, unless so many jobs are submitted that slurmctld is busy",
        )


def _groups(settings: Settings, found: dict[str, str]) -> Iterator[Finding]:
    """Check which processes get a signal to a pilot, and whether limits hold. Both need Slurm's control groups."""
    tracks, tasks = found.get("ProctrackType", ""), found.get("TaskPlugin", "")
    if tracks == "proctrack/linuxproc":
        yield Subject("Slurm's ProctrackType").warning(
            f"{tracks} signals all processes of a Slurm job: when a pilot is told to end, so are the programs that it "
            "runs, and their responses say that a signal ended them",
            "set ProctrackType=proctrack/cgroup",
        )
    if settings.sandbox.engine != "oci":
        yield Subject("limits of Slurm's jobs").note(
            f"the engine is {settings.sandbox.engine!a} here: its daemon starts the containers, so the memory and "
            "cores of the Slurm job do not bound them, and the end of the Slurm job does not end them",
            'set [sandbox] engine = "oci" on the nodes, see "Executors that Slurm starts" in the operator\'s page',
        )
    elif "task/cgroup" not in tasks:
        yield Subject("Slurm's TaskPlugin").warning(
            "without task/cgroup Slurm bounds no memory and no cores: only their own limits bound a pilot's programs",
            "set TaskPlugin=task/cgroup,task/affinity, with ConstrainRAMSpace and ConstrainCores in cgroup.conf",
        )
    elif "MEMORY" not in (divides := found.get("SelectTypeParameters", "MEMORY").upper()):
        yield Subject("Slurm's SelectTypeParameters").warning(
            f"{divides or 'none'}: Slurm gives each job all memory of its node, so a pilot's programs are bounded by "
            "their own limits only",
            "set SelectTypeParameters=CR_Core_Memory, and RealMemory for each node",
        )


def _partition(name: str, pool: PoolSettings, partitions: list[dict[str, str]], *, preempts: bool) -> Iterator[Finding]:
    """Check that pilots of a pool can start in its partition, and that Slurm does not suspend them there."""
    wanted = ("PartitionName", pool.partition) if pool.partition else ("Default", "YES")
    found = next((each for each in partitions if each.get(wanted[0]) == wanted[1]), None)
    what = Subject(f"partition of pool {name}")
    if found is None:
        detail = f"the cluster has no partition {pool.partition!a}" if pool.partition else "the cluster has no default"
        yield what.refused(f"{detail}, so no pilot starts", f"set scale.pools.{name}.partition to one that sinfo lists")
        return
    title, most = found.get("PartitionName", ""), _limit(found.get("MaxTime", ""))
    if most is not None and most < pool.time:
        yield what.refused(
            f"{title} allows {most:.0f} s, and a pilot asks for {pool.time:g} s: it waits and never starts",
            f"set scale.pools.{name}.time to {most:.0f}",
        )
    if preempts and "SUSPEND" in found.get("PreemptMode", ""):
        yield what.warning(
            f"jobs in {title} are suspended for others; a suspended pilot renews nothing, so what it runs loses an "
            "attempt after the lease",
            f"set PreemptMode=CANCEL for {title}",
        )


def _limit(said: str) -> float | None:
    """Return a time limit of Slurm's, as [DAYS-]HOURS:MINUTES:SECONDS, in seconds; None where there is none."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", said)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(each or 0) for each in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _drains(settings: Settings, wait: float | None) -> Finding:
    grace = Subject("Slurm's KillWait")
    if wait is None:
        return grace.unknown("scontrol does not tell its value")
    late = {name: pool.drain for name, pool in settings.scale.pools.items() if pool.drain > wait - SPARE}
    if not late:
        most = max(pool.drain for pool in settings.scale.pools.values())
        return grace.fine(f"{wait:.0f} s, and a drain takes {most:g} s at most")
    said = ", ".join(f"scale.pools.{name}.drain is {drain:g} s" for name, drain in late.items())
    return grace.warning(
        f"{wait:.0f} s, and {said}: when a pilot is cancelled by hand, a job that needs longer loses an attempt",
        f"set the drain to {max(0.0, wait - SPARE):g}, or KillWait to {max(late.values()) + SPARE:g}",
    )


def _preempts(found: dict[str, str]) -> bool:
    return found.get("PreemptType", "preempt/none") not in ("preempt/none", "(null)")


def _seconds(said: str) -> float | None:
    match = re.fullmatch(r"(\d+) sec", said)
    return float(match[1]) if match else None
