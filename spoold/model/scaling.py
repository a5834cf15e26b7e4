"""Pools of pilots: the settings of ``spoold scale``, which makes Slurm start executors."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from spoold.model.setting import setting

POOL = "^[A-Za-z0-9][A-Za-z0-9._-]{0,47}$"  # with a number behind it, it is the name of an executor
MOST = 10_000
MARGIN = 30.0  # seconds that an executor has to end, after its drain


class PoolSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One pool: executors that Slurm starts, each a job with ``slots`` CPUs of one node."""

    most: Annotated[int, setting("how many executors there may be", ge=0, le=MOST)] = 1
    least: Annotated[int, setting("how many there are at least, also when nothing waits", ge=0, le=MOST)] = 0
    entries: Annotated[int, setting("how many submissions there are for each before one more is started", ge=1)] = 4
    slots: Annotated[int, setting("how many programs each runs at once; so many CPUs it asks for", ge=1)] = 1
    memory: Annotated[int, setting("what each asks for; 0 means the cluster's default", "bytes", ge=0)] = 0
    time: Annotated[float, setting("the time limit of each; it takes no more jobs before", "seconds", ge=120)] = 3600.0
    drain: Annotated[
        float,
        setting(
            "one that is to end lets jobs run for so long, then they go back and lose no attempt; less than Slurm's "
            "KillWait by 5 s",
            "seconds",
            ge=0,
        ),
    ] = 25.0
    idle: Annotated[float, setting("each ends after so long without work", "seconds", gt=0)] = 60.0
    partition: Annotated[str, setting("Slurm's partition; empty means its default")] = ""
    account: Annotated[str, setting("the account that is charged; empty means the user's default")] = ""
    comment: Annotated[str, setting("what accounting shows of its jobs")] = ""
    options: Annotated[list[Annotated[str, Meta(pattern="^--?[A-Za-z]")]], setting("further options of sbatch")] = []
    log: Annotated[str, setting("the file on the node for what an executor logs; sbatch fills in %j and the like")] = (
        "/dev/null"
    )
    program: Annotated[str, setting("where spoold is on the nodes")] = "/usr/bin/spoold"
    config: Annotated[str, setting("the settings on the nodes")] = "/etc/spoold/spoold.toml"


class ScaleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Executors that Slurm starts while there is work for them, see `spoold scale`.

    The first pool gets as many executors as it may have, then the next. Each pool is a table `[scale.pools.NAME]`.
    """

    interval: Annotated[float, setting("between two looks at the spool and at Slurm", "seconds", gt=0)] = 1.0
    pools: Annotated[dict[str, PoolSettings], setting("the pools, by name; the names are no others' on the spool")] = {}

    def __post_init__(self) -> None:
        """Refuse names of pools that are not allowed, when the settings are read."""
        for name in self.pools:
            if not re.fullmatch(POOL, name):
                raise ValueError(f"pools: {name!a} is no name: letters, digits, '.', '_' and '-', 48 at most")
