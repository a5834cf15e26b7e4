"""The field: a spool with its daemons, a pool of pilots, a cluster with two nodes, and a client."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from spoold.config import ExecutorSettings, LeaseSettings, OciSettings, SandboxSettings, Settings
from spoold.model.limits import MIB
from spoold.model.scaling import PoolSettings, ScaleSettings
from tests.clusters import Real
from tests.engines import REPOSITORY, SLOWNESS
from tests.served import Served
from tests.storms.witness import POOL, Witness

ROLES = ("builder", "intake", "executor", "health", "scale")  # the executor is a router
DRAIN = 2.0  # seconds; some programs run longer
LOST = 30.0  # seconds; a pilot that only starts slowly, on a busy machine, should not be lost
PATIENCE = 900.0 * SLOWNESS  # seconds
# A drain that is late since the machine is busy must not end in SIGKILL: that is not what is tested.
PREEMPTS = """\
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
SlurmctldParameters=preempt_send_user_signal
KillWait=600
MessageTimeout=20
SlurmdTimeout=60
"""
TRACKS = "ProctrackType=proctrack/pgid\n"  # signals are for pilots, as with control groups
PARTITIONS = """\
PartitionName=low Nodes=ALL Default=YES State=UP PriorityTier=1 PreemptMode=CANCEL GraceTime=600
PartitionName=high Nodes=ALL State=UP PriorityTier=9 PreemptMode=OFF
"""
PLAIN = Settings(nixpkgs={"default": "/srv/nixpkgs"})
LIBRARIES = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))


class Shape(NamedTuple):
    """At most so many pilots, each of so many slots. A node has as many CPUs, so there is room for one on each."""

    most: int = 4
    slots: int = 2


STORMY = Shape()


class Field:
    """All of it, below ``place``. With the engine "oci" jobs run in sandboxes, below control groups of Slurm's jobs.

    ``lease`` is in seconds; None is for leases that the witness has run out.
    """

    def __init__(
        self, place: Path, engine: str, settings: Settings, lease: float | None, shape: Shape = STORMY
    ) -> None:
        self.place, self.shape, self.sandboxed = place, shape, engine == "oci"
        (place / "tmp").mkdir()  # of jobs that are plain processes
        groups_for = "root" if engine == "oci" else None
        extra = PREEMPTS if engine == "oci" else PREEMPTS + TRACKS
        self.cluster = Real(extra=extra, partitions=PARTITIONS, cpus=shape.slots, memory=4000, groups_for=groups_for)
        try:
            self._start(engine, settings, lease)
        except BaseException:
            self.cluster.stop()
            raise
        self.witness = Witness(self.served.spool, hasten=lease is None)
        self.witness.start()

    def _start(self, engine: str, settings: Settings, lease: float | None) -> None:
        module = "spoold.cli.daemon" if engine == "oci" else "tests.pilot"
        program, config = self.place / "pilot", self.place / "pilots.toml"
        program.write_text(
            f'#!/bin/sh\ncd /\nTMPDIR={self.place}/tmp PYTHONPATH={LIBRARIES} exec {sys.executable} -m {module} "$@"\n'
        )
        program.chmod(0o755)
        pool = PoolSettings(
            most=self.shape.most,
            entries=self.shape.slots,
            slots=self.shape.slots,
            idle=3.0,
            drain=DRAIN,
            program=str(program),
            config=str(config),
            log=f"{self.place}/pilot-%j.log",
        )
        # As many attempts as it takes: that chance may not strike one submission three times is not what is tested.
        leases = LeaseSettings(renewal=0.5, limit=lease or 3600.0, check=0.5, pause=0.5, attempts=100)
        head = replace(
            settings,
            executor=ExecutorSettings(name="head", slots=1, route_only=True),
            scale=ScaleSettings(interval=0.5, pools={POOL: pool}),
        )
        head = replace(head, spool=replace(head.spool, published_by="health"))
        spool = replace(head.spool, path=str(self.place / "spool"))
        pilots = replace(
            head,
            spool=spool,
            lease=leases,
            executor=ExecutorSettings(slots=self.shape.slots),
            sandbox=SandboxSettings(engine="oci", mode="recycled") if engine == "oci" else SandboxSettings(),
            oci=OciSettings(state=str(self.place / "oci")),
        )
        config.write_bytes(msgspec.toml.encode(pilots))
        variables = {"PYTHONPATH": LIBRARIES} | self.cluster.variables
        # Slurm goes on saying that some of those run which were killed, and only scale finds out, after a lease.
        scales = self.place / "scale.toml"
        scales.write_bytes(msgspec.toml.encode(replace(head, spool=spool, lease=replace(leases, limit=lease or LOST))))
        self.served = Served(
            self.place, head, leases, roles=ROLES, module=module, variables=variables, configs={"scale": scales}
        )

    def drop(self, number: int, seconds: float) -> None:
        """Drop a submission that sleeps for so long and prints its number."""
        files = [{"name": "run.sh", "content": f"sleep {seconds:.2f}; echo {number}\n"}]
        # The machine may stand still. With the default memory not all slots of a large executor would have work.
        limits = {"run": {"time": 600, "cpu_time": 600, "memory": 64 * MIB}}
        private = self.served.spool / "incoming" / f".job-{number}"
        private.write_text(json.dumps({"files": files, "limits": limits}))
        private.rename(private.with_name(f"job-{number}.json"))

    def answers(self) -> int:
        """Return how many responses there are."""
        return sum(name.endswith(".response.json") for name in os.listdir(self.served.spool / "done"))

    def response(self, number: int) -> dict[str, Any]:
        """Return a response that is there."""
        path = self.served.spool / "done" / f"job-{number}.response.json"
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found

    def restart(self, role: str) -> None:
        """Kill a daemon of the head, and start it again as systemd would."""
        process = self.served.processes[role]
        process.kill()
        process.wait()
        self.served.start([role])

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait; raise :class:`AssertionError` where it does not come about, or where a daemon has ended by itself."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            ended = {
                role: found.returncode for role, found in self.served.processes.items() if found.poll() is not None
            }
            assert not ended, (ended, self.served.said())
            assert self.witness.failure is None, self.witness.failure
            assert time.monotonic() < deadline, f"{what}: {self.picture()}"
            time.sleep(0.1)

    def picture(self) -> str:
        """Return what there is, for a person."""
        names = {
            each: os.listdir(self.served.spool / each) for each in ("incoming", "new", "building", "running", "tmp")
        }
        queue = self.cluster.run("squeue", "-o", "%i %T %j %N %r")
        return f"{names}\n{queue}\n{self.witness.pilots()}\n{self.served.said()}"

    def jobs(self) -> list[str]:
        """Return the ids of the pilots' jobs that have not ended. Where Slurm does not answer they are unknown."""
        names = ",".join(f"spoold-{POOL}-{k}" for k in range(self.shape.most))
        try:
            return self.cluster.run("squeue", "-h", "-o", "%i", "--name", names).split()
        except AssertionError:
            return ["unknown"]

    def names(self) -> list[str]:
        """Return what pilots have in ``tmp/``."""
        return [name for name in os.listdir(self.served.spool / "tmp") if name.startswith(f"executor-{POOL}-")]

    def places(self) -> list[str]:
        """Return the directories that pilots have for their sandboxes on this host."""
        return [str(each) for each in (self.place / "oci").glob("*/*")]

    def stop(self) -> None:
        """End everything."""
        self.witness.end()
        try:
            self.served.stop()  # the scaler first, so that no more pilots come
        finally:
            self.cluster.stop()

    def left(self) -> list[str]:
        """Return the processes, control groups and mounts that are left, once everything is stopped."""
        found = [f"{pid}: {said}" for pid, said in _processes() if str(self.place) in said]
        found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.place) in line]
        return found + self.cluster.groups_left()


def _processes() -> Iterator[tuple[int, str]]:
    """Yield the pid of each process, with its command line and its working directory."""
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            with contextlib.suppress(OSError):
                words = (each / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield int(each.name), f"{words} in {os.readlink(each / 'cwd')}"
