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


class Told(Slurm):
    """A Slurm with this configuration."""

    def __init__(self, found: dict[str, str] | None) -> None:
        self._found = found

    def configuration(self) -> dict[str, str] | None:
        return self._found


def levels(found: dict[str, str] | None, settings: Settings = SETTINGS) -> dict[str, Level]:
    return {each.what: each.level for each in examine(settings, Told(found))}


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
        ({"PreemptType": "preempt/partition_prio"}, "preemption", Level.WARNING),
        ({"ProctrackType": "proctrack/linuxproc"}, "Slurm's ProctrackType", Level.WARNING),
        ({}, "limits of Slurm's jobs", Level.NOTE),
    ],
)
def test_what_costs_attempts_is_said(change: dict[str, str], what: str, level: Level) -> None:
    assert levels(GOOD | change)[what] is level


def test_with_groups_all_is_well() -> None:
    oci = replace(SETTINGS, sandbox=SandboxSettings(engine="oci"))
    groups = {"ProctrackType": "proctrack/cgroup", "TaskPlugin": "task/cgroup,task/affinity"}
    assert set(levels(GOOD | groups, oci).values()) == {Level.FINE}
    assert levels(GOOD | groups | {"TaskPlugin": "task/affinity"}, oci)["Slurm's TaskPlugin"] is Level.WARNING


def test_what_is_said_before_a_preemption_is_enough() -> None:
    preempts = {"PreemptType": "preempt/qos", "SlurmctldParameters": "enable_configless,preempt_send_user_signal"}
    assert "preemption" not in levels(GOOD | preempts)


@pytest.mark.skipif(os.geteuid() != 0, reason="it is about root")
def test_root_is_told_where_it_may_not_submit() -> None:
    assert levels(GOOD | {"DisableRootJobs": "Yes"})["Slurm's DisableRootJobs"] is Level.NOTE


def test_a_real_cluster_is_understood() -> None:
    with running(Real(nodes=1, extra="KillWait=5\n")) as cluster:
        drains = Settings(scale=ScaleSettings(pools={"a": PoolSettings(drain=1.0)}))
        found = {each.what: each for each in examine(drains, Slurm(cluster.variables))}
        assert found["Slurm"].level is Level.FINE
        assert found["Slurm's KillWait"].level is Level.WARNING
        assert "5 s" in found["Slurm's KillWait"].detail


@pytest.mark.parametrize("settings", [Settings(), SETTINGS])
def test_scale_is_missed_only_where_there_are_pools(settings: Settings, tmp_path: Path) -> None:
    layout.create(str(tmp_path / "spool"))
    here = replace(settings, spool=SpoolSettings(path=str(tmp_path / "spool")))
    told = [each for each in spool.examine(here) if each.what == "daemon scale"]
    assert len(told) == len(settings.scale.pools)
