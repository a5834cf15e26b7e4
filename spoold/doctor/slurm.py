"""The doctor's look at Slurm, where the settings have pools: does it answer, and do pilots get the time to drain?"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from spoold.config import Settings
from spoold.model.findings import Finding, Subject
from spoold.slurm import Slurm, passed_on

SPARE = 5.0  # seconds between the end of a drain and SIGKILL
LONG = 300.0  # seconds until a node that is lost counts as lost: so long its jobs are shown as running
SIGNALLED = "preempt_send_user_signal"


def examine(settings: Settings, slurm: Slurm | None = None) -> Iterator[Finding]:
    """Yield what is found; nothing where no pool is set."""
    if not settings.scale.pools:
        return
    found = (slurm or Slurm(passed_on())).configuration()
    what = Subject("Slurm")
    if found is None:
        yield what.refused(
            "scontrol does not answer", "install slurm-client here, and see that slurmctld and munge run"
        )
        return
    yield what.fine(f"{found.get('ClusterName', 'a cluster')} answers")
    if os.geteuid() == 0 and found.get("DisableRootJobs", "").lower() == "yes":
        yield Subject("Slurm's DisableRootJobs").note("root may not submit jobs", "run `spoold scale` as its own user")
    wait, drain = _seconds(found.get("KillWait", "")), settings.executor.drain
    grace = Subject("Slurm's KillWait")
    if wait is not None and drain > wait - SPARE:
        yield grace.warning(
            f"{wait:.0f} s, and [executor] drain is {drain:g} s: a longer job of a pilot that is "
            "cancelled by hand loses an attempt",
            f"set executor.drain to {max(0.0, wait - SPARE):g} on the nodes, or KillWait to {drain + SPARE:g}",
        )
    elif wait is not None:
        yield grace.fine(f"{wait:.0f} s, and a drain takes {drain:g} s at most")
    timeout = _seconds(found.get("SlurmdTimeout", ""))
    if timeout is not None and timeout >= LONG:
        lease = settings.lease.limit
        yield Subject("Slurm's SlurmdTimeout").note(
            f"{timeout:.0f} s; pilots of a lost node are replaced after {lease:g} s, and keep their places until then"
        )
    if _preempts(found) and SIGNALLED not in found.get("SlurmctldParameters", ""):
        yield Subject("preemption").warning(
            "pilots hear of it when their grace is over, so a job that runs loses an attempt",
            f"set SlurmctldParameters={SIGNALLED}",
        )


def _preempts(found: dict[str, str]) -> bool:
    return found.get("PreemptType", "preempt/none") not in ("preempt/none", "(null)")


def _seconds(said: str) -> float | None:
    match = re.fullmatch(r"(\d+) sec", said)
    return float(match[1]) if match else None
