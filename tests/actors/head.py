"""The head of a cluster: a spool with its daemons, which let Slurm start pilots."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from spoold.actors.scale import Scale
from spoold.config import ExecutorSettings, LeaseSettings
from spoold.host import machine
from spoold.model.scaling import PoolSettings, ScaleSettings
from spoold.slurm import Job, JobState, Slurm
from tests.actors.bench import OLD, Bench, settings_for
from tests.clusters import Cluster
from tests.engines import REPOSITORY
from tests.waiting import until


class Head:
    """The head of a cluster: intake, router, builder, health and scale. A test steps them."""

    def __init__(self, root: Path, cluster: Cluster, *, lease: float = 60.0, **pool: object) -> None:
        """Make a head with leases of ``lease`` seconds, which are few where a test waits for the end of a lease."""
        program = root / "pilot"
        program.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m tests.pilot "$@"\n')
        program.chmod(0o755)
        config = root / "spoold.toml"
        changes = {
            "most": 2,
            "entries": 1,
            "idle": 1.0,
            "drain": 1.0,
            "program": str(program),
            "config": str(config),
        } | pool
        self.settings = settings_for(
            root / "spool",
            lease=LeaseSettings(renewal=0.2, limit=lease, check=0.1, pause=0.05),
            executor=ExecutorSettings(name="head", slots=1, route_only=True),
            scale=ScaleSettings(interval=0.1, pools={"pool": PoolSettings(**changes)}),  # type: ignore[arg-type]
        )
        config.write_text(f'[spool]\npath = "{root}/spool"\nscan = 0.2\n[lease]\nrenewal = 0.2\nlimit = {lease}\n')
        self.bench = Bench(root / "spool", self.settings)
        self.cluster = cluster
        self.scale = self.new_scale()

    def new_scale(self) -> Scale:
        return Scale(self.settings, Slurm(self.cluster.variables))

    def until(self, condition: Callable[[], object]) -> None:
        self.bench.until(condition, self.step)

    def step(self) -> None:
        self.bench.step()
        self.bench.health.step()
        self.scale.step()

    def states(self) -> list[JobState]:
        return [each.state for each in self.jobs()]

    def jobs(self) -> list[Job]:
        """Return the jobs that Slurm knows, once it answers."""
        found: list[Job] | None = None

        def answers() -> bool:
            nonlocal found
            found = Slurm(self.cluster.variables).jobs(os.geteuid())
            return found is not None

        until(answers)
        return found or []

    def processes(self) -> list[int]:
        """Return the pids of the pilots on this host."""
        found: list[int] = []
        for lock in (self.bench.root / "tmp").glob("executor-pool-*.lock"):
            found += machine.lock_holders(str(lock)) or []
        return found

    def drop_long(self, *ids: str) -> None:
        """Drop submissions that run until :meth:`let_go`."""
        script = f"until [ -e {self.bench.root.parent}/go ]; do sleep 0.1; done"
        for id_ in ids:
            self.bench.drop(id_, script, limits={"run": {"time": 600, "cpu_time": 600}})

    def hold(self, id_: str) -> None:
        """Drop such a submission, and wait until a pilot runs it."""
        self.drop_long(id_)
        self.until(lambda: self.bench.names("running") and self.processes())

    def let_leases_run_out(self) -> None:
        """Let the leases of dead pilots run out, and those of the entries that they held."""
        self.bench.let_leases_run_out("running")
        for path in (self.bench.root / "tmp").glob("executor-pool-*.host"):
            with contextlib.suppress(FileNotFoundError):  # its pilot has ended
                os.utime(path, OLD)

    def let_go(self) -> None:
        """Let the held submissions end."""
        (self.bench.root.parent / "go").touch()

    def answered(self, *ids: str) -> bool:
        return all(self.bench.has("done", f"{id_}.response.json") for id_ in ids)

    def left(self) -> list[str]:
        return [name for name in os.listdir(self.bench.root / "tmp") if name.startswith("executor-pool")]
