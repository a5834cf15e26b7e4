"""The doctor's look at Slurm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from spoold.config import SandboxSettings, Settings, SpoolSettings
from spoold.doctor import spool
from spoold.doctor.slurm import examine
from spoold.model.findings import Level
from spoold.model.scaling import PoolSettings, ScaleSettings
from spoold.slurm import Slurm
from spoold.spool import layout
from tests.clusters import Real, running

SETTINGS = Settings(scale=ScaleSettings(pools={"a": PoolSettings()}))
GOOD = {"ClusterName": "c", "KillWait": "30 sec", "SlurmdTimeout": "60 sec", "PreemptType": "preempt/none"}
GOOD |= {"SchedulerParameters": "bf_interval=1,batch_sched_delay=0"}
PARTITION = {"PartitionName": "main", "Default": "YES", "MaxTime": "UNLIMITED", "PreemptMode": "CANCEL"}


class Told(Slurm):
    """A Slurm with this configuration."""

    def __init__(self, found: dict[str, str] | None, partition: dict[str, str]) -> None:
        self._found, self._partition = found, partition

    def partitions(self) -> list[dict[str, str]] | None:
        return [self._partition]

    def configuration(self) -> dict[str, str] | None:
        return self._found


def levels(
    found: dict[str, str] | None, settings: Settings = SETTINGS, partition: dict[str, str] = PARTITION
) -> dict[str, Level]:
    return {each.what: each.level for each in examine(settings, Told(found, partition))}


def test_without_pools_it_says_nothing() -> None:
    assert levels(None, Settings()) == {}


def test_a_slurm_that_is_away_is_refused() -> None:
    assert levels(None) == {"Slurm": Level.REFUSED}


@pytest.mark.parametrize(
    ("change", "what", "level"),
    [
        ({}, "Slurm's KillWait", Level.FINE),
        ({"KillWait": "29 sec"}, "Slurm's KillWait", Level.WARNING),
        ({"SlurmdTimeout": "300 sec"}, "Slurm's SlurmdTimeout", Level.NOTE),
        ({"SchedulerParameters": "(null)"}, "Slurm's SchedulerParameters", Level.NOTE),
        ({"SchedulerParameters": "batch_sched_delay=10"}, "Slurm's SchedulerParameters", Level.NOTE),
        ({"PreemptType": "preempt/partition_prio"}, "preemption", Level.WARNING),
        ({"ProctrackType": "proctrack/linuxproc"}, "Slurm's ProctrackType", Level.WARNING),
        ({}, "limits of Slurm's jobs", Level.NOTE),
    ],
)
def test_what_costs_attempts_or_time_is_said(change: dict[str, str], what: str, level: Level) -> None:
    assert levels(GOOD | change)[what] is level


def test_with_groups_all_is_well() -> None:
    oci = replace(SETTINGS, sandbox=SandboxSettings(engine="oci"))
    groups = {"ProctrackType": "proctrack/cgroup", "TaskPlugin": "task/cgroup,task/affinity"}
    assert set(levels(GOOD | groups, oci).values()) == {Level.FINE}
    assert levels(GOOD | groups | {"TaskPlugin": "task/affinity"}, oci)["Slurm's TaskPlugin"] is Level.WARNING
    for divides, level in (("CR_CORE_MEMORY", None), ("CR_CORE", Level.WARNING), ("NONE", Level.WARNING)):
        found = levels(GOOD | groups | {"SelectTypeParameters": divides}, oci)
        assert found.get("Slurm's SelectTypeParameters") is level


PREEMPTS = {"PreemptType": "preempt/qos", "SlurmctldParameters": "enable_configless,preempt_send_user_signal"}


@pytest.mark.parametrize(
    ("partition", "level"),
    [
        ({}, None),
        ({"Default": "NO"}, Level.REFUSED),
        ({"MaxTime": "00:59:59"}, Level.REFUSED),
        ({"MaxTime": "01:00:00"}, None),
        ({"MaxTime": "1-00:00:00"}, None),
        ({"PreemptMode": "GANG,SUSPEND"}, Level.WARNING),
    ],
)
def test_a_partition_in_which_pilots_never_start_or_are_suspended_is_said(
    partition: dict[str, str], level: Level | None
) -> None:
    assert levels(GOOD | PREEMPTS, partition=PARTITION | partition).get("partition of pool a") is level


@pytest.mark.parametrize(("time", "drain", "said"), [(120, 25.0, True), (145, 25.0, False), (3600, 3600.0, True)])
def test_a_pilot_that_takes_jobs_for_a_moment_only_is_said(time: float, drain: float, *, said: bool) -> None:
    pools = {"a": PoolSettings(time=time, drain=drain)}
    assert ("time of pool a" in levels(GOOD, Settings(scale=ScaleSettings(pools=pools)))) is said


def test_without_preemption_nobody_is_suspended() -> None:
    assert "partition of pool a" not in levels(GOOD, partition=PARTITION | {"PreemptMode": "GANG,SUSPEND"})


def test_what_is_said_before_a_preemption_is_enough() -> None:
    assert "preemption" not in levels(GOOD | PREEMPTS)


@pytest.mark.skipif(os.geteuid() != 0, reason="it is about root")
def test_root_is_told_where_it_may_not_submit() -> None:
    assert levels(GOOD | {"DisableRootJobs": "Yes"})["Slurm's DisableRootJobs"] is Level.NOTE


def test_a_real_cluster_is_understood() -> None:
    """With all that can be wrong with it: each value is as this Slurm writes it."""
    wrong = "KillWait=5\nSlurmdTimeout=300\nDisableRootJobs=YES\n"
    wrong += "PreemptType=preempt/partition_prio\nPreemptMode=GANG,SUSPEND\n"
    partitions = "PartitionName=main Nodes=ALL Default=YES State=UP\nPartitionName=short Nodes=ALL MaxTime=30\n"
    pools = {"a": PoolSettings(drain=1.0), "b": PoolSettings(partition="short"), "c": PoolSettings(partition="none")}
    with running(Real(nodes=1, extra=wrong, partitions=partitions)) as cluster:
        listed = list(examine(Settings(scale=ScaleSettings(pools=pools)), Slurm(cluster.variables)))
    found = {each.what: each for each in listed}
    assert found["Slurm"].level is Level.FINE
    assert found["Slurm's KillWait"].level is Level.WARNING
    assert "5 s" in found["Slurm's KillWait"].detail
    assert "300 s" in found["Slurm's SlurmdTimeout"].detail
    assert ("Slurm's DisableRootJobs" in found) is (os.geteuid() == 0)
    assert found["Slurm's ProctrackType"].level is Level.WARNING
    assert found["preemption"].level is Level.WARNING
    told = {name: [each.detail for each in listed if each.what == f"partition of pool {name}"] for name in "abc"}
    assert ["main are suspended" in each for each in told["a"]] == [True]
    assert ["1800 s" in each for each in told["b"]] == [True, False]
    assert ["no partition 'none'" in each for each in told["c"]] == [True]


@pytest.mark.parametrize("divides", ["CR_Core", "CR_Core_Memory"])
def test_a_cluster_that_is_well_is_understood(divides: str) -> None:
    settings = replace(SETTINGS, sandbox=SandboxSettings(engine="oci"))
    bounds = f"TaskPlugin=task/cgroup\nSelectTypeParameters={divides}\n"
    with running(Real(nodes=1, extra=bounds)) as cluster:
        found = {each.what: each.level for each in examine(settings, Slurm(cluster.variables))}
    assert ("Slurm's SelectTypeParameters" in found) is (divides == "CR_Core")
    well = {"preemption", "Slurm's DisableRootJobs", "Slurm's SchedulerParameters", "partition of pool a"}
    assert well.isdisjoint(found)


@pytest.mark.parametrize("settings", [Settings(), SETTINGS])
def test_scale_is_missed_only_where_there_are_pools(settings: Settings, tmp_path: Path) -> None:
    layout.create(str(tmp_path / "spool"))
    here = replace(settings, spool=SpoolSettings(path=str(tmp_path / "spool")))
    told = [each for each in spool.examine(here) if each.what == "daemon scale"]
    assert len(told) == len(settings.scale.pools)
