"""Pools of pilots: the settings of ``spoold scale``, which makes Slurm start executors."""

from __future__ import annotations

import math
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

    most: Annotated[int, setting("how many executors there may be at most", ge=0, le=MOST)] = 1
    least: Annotated[int, setting("how many executors there are at least, even if nothing waits", ge=0, le=MOST)] = 0
    entries: Annotated[
        int, setting("how many submissions there are for each executor before one more is started", ge=1)
    ] = 4
    slots: Annotated[int, setting("how many programs each executor runs at once; it asks for as many CPUs", ge=1)] = 1
    memory: Annotated[
        int, setting("how much memory each executor asks for; 0 means the cluster's default", "bytes", ge=0)
    ] = 0
    time: Annotated[
        float, setting("the time limit of each executor; it stops taking jobs some time before", "seconds", ge=120)
    ] = 3600.0
    drain: Annotated[
        float,
        setting(
            "how long an executor that is to end lets its jobs run; after that they are put back and lose no attempt. "
            "Keep it 5 s below Slurm's KillWait",
            "seconds",
            ge=0,
        ),
    ] = 25.0
    idle: Annotated[float, setting("an executor ends after this long without work", "seconds", gt=0)] = 60.0
    partition: Annotated[str, setting("Slurm's partition; empty means the cluster's default")] = ""
    account: Annotated[str, setting("the account that is charged; empty means the user's default")] = ""
    comment: Annotated[str, setting("the comment that accounting shows for the executors' jobs in Slurm")] = ""
    options: Annotated[list[Annotated[str, Meta(pattern="^--?[A-Za-z]")]], setting("further options for sbatch")] = []
    log: Annotated[str, setting("the file on the node that an executor logs to; sbatch fills in %j and the like")] = (
        "/dev/null"
    )
    program: Annotated[str, setting("the path of spoold on the nodes")] = "/usr/bin/spoold"
    config: Annotated[str, setting("the path of the settings file on the nodes")] = "/etc/spoold/spoold.toml"

    @property
    def notice(self) -> int:
        """Return how many seconds before the time limit Slurm tells an executor to end."""
        return math.ceil(self.drain + MARGIN)

    @property
    def lifetime(self) -> float:
        """Return for how many seconds an executor takes jobs. It ends by itself before Slurm tells it to."""
        return max(1.0, self.time - self.notice - MARGIN)


class ScaleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Executors that Slurm starts while there is work for them, see `spoold scale`.

    The first pool gets as many executors as it may have, then the next. Each pool is a table `[scale.pools.NAME]`.
    """

    interval: Annotated[float, setting("the time between two looks at the spool and at Slurm", "seconds", gt=0)] = 1.0
    pools: Annotated[
        dict[str, PoolSettings],
        setting("the pools, by name; no other executor on the spool may have one of these names"),
    ] = {}

    def __post_init__(self) -> None:
        """Refuse names of pools that are not allowed, when the settings are read."""
        for name in self.pools:
            if not re.fullmatch(POOL, name):
                raise ValueError(f"pools: {name!a} is no name: letters, digits, '.', '_' and '-', 48 at most")
