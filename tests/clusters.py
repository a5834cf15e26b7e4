"""Clusters for tests: real Slurm on this host with two nodes, and a stand-in that understands our commands.

Both run jobs for real. The stand-in can also be made to fail, hang or lie. Its state is a file, ``jobs.json``, with the
id, the name, the state and the process group of each job.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from spoold.host import cgroups
from tests.owngroups import OwnGroups
from tests.waiting import end, until

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
STAND_IN = '''\
#!{python}
"""Stands for squeue, sbatch and scancel, and runs the jobs: `run ID` is one."""
import fcntl, json, os, signal, subprocess, sys, time

HERE = {here!r}

class State:
    def __enter__(self):
        self.lock = open(HERE + "/lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        try:
            self.jobs = json.load(open(HERE + "/jobs.json"))
        except FileNotFoundError:
            self.jobs = {{}}
        return self.jobs

    def __exit__(self, *_):
        with open(HERE + "/jobs.json.new", "w") as new:
            json.dump(self.jobs, new)
        os.rename(HERE + "/jobs.json.new", HERE + "/jobs.json")
        self.lock.close()

def option(name):
    return next((each.partition("=")[2] for each in sys.argv if each.startswith(f"--{{name}}=")), "")

def squeue():
    with State() as jobs:
        for id_, job in jobs.items():
            print(f"{{id_}}|{{job['state']}}|{{job['name']}}|None")

def sbatch():
    with State() as jobs:
        id_ = str(len(jobs) + 1)
        jobs[id_] = {{"name": option("job-name"), "state": "PENDING", "pid": 0, "argv": sys.argv[1:]}}
    subprocess.Popen([HERE + "/slurm", "run", id_, option("wrap")], start_new_session=True, stdin=subprocess.DEVNULL,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(id_)

def scancel():
    with State() as jobs:
        job = jobs[sys.argv[-1]]
        if "--state=PENDING" in sys.argv and job["state"] != "PENDING":
            return
        running = job["state"] == "RUNNING"
        job["state"] = "COMPLETING" if running else "CANCELLED"
        if running and job["pid"]:
            try:
                os.killpg(job["pid"], signal.SIGTERM)
            except ProcessLookupError:
                job["state"] = "CANCELLED"

def run():
    id_, command = sys.argv[2:]
    while True:
        with State() as jobs:
            if jobs[id_]["state"] != "PENDING":
                return
            if sum(job["state"] in ("RUNNING", "COMPLETING") for job in jobs.values()) < {nodes}:
                job = subprocess.Popen(["sh", "-c", command], start_new_session=True)
                jobs[id_].update(state="RUNNING", pid=job.pid)
                break
        time.sleep(0.05)
    code = job.wait()
    with State() as jobs:
        jobs[id_]["state"] = {{"RUNNING": "COMPLETED" if code == 0 else "FAILED"}}.get(jobs[id_]["state"], "CANCELLED")

called = os.path.basename(sys.argv[0])
if called in ("squeue", "sbatch", "scancel"):
    try:
        mood = open(HERE + "/mood." + called).read()
    except FileNotFoundError:
        mood = ""
    if mood == "fails":
        sys.exit("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    if mood == "hangs":
        time.sleep(1000)
    if mood == "lies":
        sys.exit(0)
    if mood == "babbles":
        print("squeue: not what you wanted")
        sys.exit(0)
globals()[sys.argv[1] if called == "slurm" else called]()
'''
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={here}/run/munge.sock
CredType=cred/munge
SlurmctldPort={port}
SlurmctldPidFile={here}/run/slurmctld.pid
SlurmctldLogFile={here}/log/slurmctld.log
SlurmdPidFile={here}/run/slurmd.%n.pid
SlurmdLogFile={here}/log/slurmd.%n.log
SlurmdSpoolDir={here}/state/%n
SlurmdParameters=config_overrides
StateSaveLocation={here}/state/ctld
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
ReturnToService=2
SlurmdTimeout=20
SlurmctldTimeout=20
KillWait=60
MessageTimeout=100
"""
PARTITION = "PartitionName=main Nodes=ALL Default=YES State=UP\n"
CGROUPS = """\
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup,task/affinity
SelectTypeParameters=CR_Core_Memory
"""
LIMITS = "CgroupPlugin=cgroup/{version}\nCgroupAutomount=no\nConstrainCores=yes\nConstrainRAMSpace=yes\n"
DEPLOYED = Path(__file__).parents[1] / "contrib" / "deploy"


class Cluster(Protocol):
    """The part of a cluster that tests need."""

    variables: dict[str, str]  # environment in which the cluster's commands work

    def stop(self) -> None:
        """Stop the cluster and end its jobs."""


class StandIn:
    """The stand-in. It runs as many jobs at once as it has ``nodes``."""

    def __init__(self, here: Path, nodes: int = 2) -> None:
        self._here = here
        here.mkdir()
        program = here / "slurm"
        program.write_text(STAND_IN.format(python=sys.executable, here=str(here), nodes=nodes))
        program.chmod(0o755)
        for name in ("squeue", "sbatch", "scancel"):
            (here / name).symlink_to(program)
        self.variables = {"PATH": f"{here}:{os.environ['PATH']}"}

    def feel(self, command: str, mood: str) -> None:
        """Make a command fail, hang, lie (that there is nothing) or babble. ``""`` makes it work again."""
        (self._here / "mood.new").write_text(mood)
        # in one step, because the command may be running now
        (self._here / "mood.new").rename(self._here / f"mood.{command}")

    def jobs(self) -> dict[str, dict[str, object]]:
        """Return all jobs, by id."""
        path = self._here / "jobs.json"
        found: dict[str, dict[str, object]] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def stop(self) -> None:
        """End all jobs, those that wait for others first: they would begin when the others end."""
        with (self._here / "lock").open("w") as lock:  # the same lock as the program takes
            fcntl.flock(lock, fcntl.LOCK_EX)
            jobs = self.jobs()
            for job in jobs.values():
                if job["state"] == "PENDING":
                    job["state"] = "CANCELLED"
            (self._here / "jobs.json.new").write_text(json.dumps(jobs))
            (self._here / "jobs.json.new").rename(self._here / "jobs.json")
        for job in self.jobs().values():
            if job["state"] in ("RUNNING", "COMPLETING") and isinstance(job["pid"], int):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(job["pid"], signal.SIGKILL)


class Real:
    """Slurm with munge, run by the user of the tests on free ports.

    ``extra`` are lines of slurm.conf, in place of those of the same name, and ``partitions`` its last ones. With
    ``groups_for`` jobs are in control groups, of the version that this host has. contrib's Prolog hands them over to
    that user, and with ``""`` to nobody.
    """

    def __init__(
        self,
        nodes: int = 2,
        extra: str = "",
        groups_for: str | None = None,
        partitions: str = PARTITION,
        *,
        cpus: int = 1,
        memory: int = 1000,
    ) -> None:
        self._path = os.environ["PATH"] + ":/usr/sbin:/sbin"
        missing = [program for program in PROGRAMS if shutil.which(program, path=self._path) is None]
        if missing:
            pytest.fail(f"not installed: {', '.join(missing)}; apt-get install --no-install-recommends slurm-wlm munge")
        self._here = here = Path(tempfile.mkdtemp(prefix="spoold-slurm-"))
        here.chmod(0o755)  # clients of munge must be able to enter
        for name in ("state/ctld", "log", "run"):
            (here / name).mkdir(parents=True)
        self.variables = {"PATH": self._path, "SLURM_CONF": str(here / "slurm.conf")}
        # Control groups on this host have the name of the node, and another process of tests may have a cluster as
        # well.
        self._nodes = [f"p{os.getpid()}n{number}" for number in range(1, nodes + 1)]
        ports = _free_ports(nodes + 1)
        host = os.uname().nodename
        conf = CONF.format(here=here, host=host, user=_user(), port=ports[0])
        self._groups: OwnGroups | None = None
        self._missed: list[str] = []  # control groups that the Epilog should have removed
        if groups_for is not None:
            # The Prolog makes groups below those of slurmd, and another process of tests may run one as well.
            self._groups = OwnGroups()
            conf = _without(conf, CGROUPS) + CGROUPS + self._deploy(groups_for)
            version = "v2" if cgroups.delegable() else "v1"
            (here / "cgroup.conf").write_text(LIMITS.format(version=version))
        conf = _without(conf, extra) + extra
        for name, port in zip(self._nodes, ports[1:], strict=True):
            conf += (
                f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory}\n"
            )
        (here / "slurm.conf").write_text(conf + partitions)
        key = here / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _deploy(self, user: str) -> str:
        """Let contrib's Prolog and Epilog make control groups for a user's jobs. Return their lines of slurm.conf."""
        for name in ("prolog", "epilog") if user else ():
            script = self._here / name
            said = self._here / "log" / name
            script.write_text(f"#!/bin/sh\nexec {DEPLOYED}/slurm-{name} {user} 2>>{said}\n")
            script.chmod(0o755)
        return f"Prolog={self._here}/prolog\nEpilog={self._here}/epilog\n" if user else ""

    def said(self, name: str) -> str:
        """Return the errors that the Prolog or the Epilog printed."""
        path = self._here / "log" / name
        return path.read_text() if path.exists() else ""

    def _start(self) -> None:
        here = self._here
        files = {"key-file": "munge.key", "seed-file": "munge.seed", "log-file": "log/munged.log"}
        files |= {"socket": "run/munge.sock", "pid-file": "run/munged.pid"}
        self.run("munged", "--num-threads=2", *(f"--{option}={here / name}" for option, name in files.items()))
        self.start_controller("-c")
        for name in self._nodes:
            self.start_node(name)
        until(
            lambda: set(self.run("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split()) >= {*self._nodes},
            lambda: f"the nodes did not become idle: {self.run('sinfo', '-N')}",
        )

    def start_controller(self, *options: str) -> None:
        """Start slurmctld."""
        self.run("slurmctld", *options)
        self._await("slurmctld")

    def kill_controller(self) -> None:
        """Kill slurmctld, as a crash would. Its port and its state are free afterwards."""
        self._kill("slurmctld")

    def keep_state(self) -> None:
        """Copy what slurmctld has saved so far, for :meth:`forget`."""
        while True:
            shutil.rmtree(self._here / "state/kept", ignore_errors=True)
            with contextlib.suppress(shutil.Error):  # it renames its files while it saves
                shutil.copytree(self._here / "state/ctld", self._here / "state/kept")
                return

    def forget(self) -> None:
        """Put back the state that was kept, so that the next slurmctld knows nothing that came later. None may run."""
        shutil.rmtree(self._here / "state/ctld")
        shutil.copytree(self._here / "state/kept", self._here / "state/ctld")

    def start_node(self, name: str) -> None:
        """Start the slurmd of a node."""
        self.run("slurmd", "-N", name, enter=self._groups)
        self._await(f"slurmd.{name}")

    def kill_node(self, name: str) -> None:
        """Kill the slurmd of a node. The node's jobs go on."""
        self._kill(f"slurmd.{name}")

    @property
    def groups(self) -> OwnGroups:
        """Return the control groups of its nodes, where jobs have some."""
        assert self._groups
        return self._groups

    def run(self, *argv: str, user: str | None = None, enter: OwnGroups | None = None) -> str:
        """Run one of Slurm's programs, as ``user`` and in the groups ``enter`` where named. Return its output."""
        who: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if user else {}
        if enter:
            who["preexec_fn"] = enter.enter
        done: subprocess.CompletedProcess[str] = subprocess.run(
            argv,
            env=os.environ | self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            **who,
        )
        assert done.returncode == 0 or argv[0] in ("sinfo", "scancel"), done.stderr
        return done.stdout

    def _pid(self, daemon: str) -> int:
        return int(self._pid_file(daemon).read_text())

    def _pid_file(self, daemon: str) -> Path:
        return self._here / "run" / f"{daemon}.pid"

    def _await(self, daemon: str) -> None:
        """Wait until a daemon has written its pid file, which may happen after its parent has ended."""
        log = self._here / "log" / f"{daemon}.log"
        written = self._pid_file(daemon)
        until(lambda: written.exists() and written.read_text().strip(), lambda: log.read_text()[-2000:])

    def _kill(self, daemon: str) -> None:
        end(self._pid(daemon), signal.SIGKILL)
        self._pid_file(daemon).unlink()

    def _sweep(self) -> None:
        """Run the Epilog as after one more job of each node: where a slurmd was killed, none ran for its jobs."""
        told = {"SLURM_JOB_ID": "0", "SLURM_JOB_USER": _user(), "SLURM_JOB_UID": str(os.geteuid())}
        variables = os.environ | told | {"SLURM_JOB_GID": str(os.getegid()), "SPOOLD_ABANDONED": "0"}
        for name in self._nodes:
            command = [str(DEPLOYED / "slurm-epilog"), _user()]
            inside = self.groups.enter  # as slurmd is: it ends what is in the groups below its own
            subprocess.run(command, env=variables | {"SLURMD_NODENAME": name}, check=True, preexec_fn=inside)

    def job_groups(self) -> list[Path]:
        """Return the control groups of its jobs and of their sandboxes.

        The empty group that sandboxes have in slurmd's stays while another cluster on this host runs jobs of that user.
        """
        found = [each for name in self._nodes for each in cgroups.MOUNT.glob(f"*/slurm_{name}/uid_*/job_*")]
        for name in self._nodes:
            found += cgroups.MOUNT.glob(f"system.slice/{name}_slurmstepd.scope/job_*")
        for place in self._groups.places if self._groups else []:
            found += place.glob(f"{cgroups.OF_JOBS}/*/")
        return found

    def _missed_ones(self) -> list[Path]:
        """Return the groups that are left after :meth:`_sweep`. Jobs of another cluster save those in slurmd's own."""
        found = self.job_groups()
        if any(cgroups.MOUNT.glob("*/slurm_*/uid_*/job_*")):
            return [each for each in found if each.parent.name != cgroups.OF_JOBS]
        return found

    def groups_left(self) -> list[str]:
        """Return the control groups that are there, and once it is stopped, those that its Epilog did not remove."""
        own = self._groups.places if self._groups else []
        found = [place for name in self._nodes for place in cgroups.MOUNT.glob(f"*/slurm_{name}")]
        found += [place for name in self._nodes for place in cgroups.MOUNT.glob(f"system.slice/{name}_*.scope")]
        return self._missed + [str(place) for place in (*own, *found) if place.exists()]

    def stop(self) -> None:
        """Cancel all jobs, wait for their step daemons, then stop the daemons. May be called again."""
        if not self._here.exists():
            return
        with contextlib.suppress(AssertionError, FileNotFoundError):
            for job in self.run("squeue", "-h", "-o", "%A").split():
                self.run("scancel", "--full", "--signal=KILL", job)
                self.run("scancel", job)
        with contextlib.suppress(AssertionError, FileNotFoundError):
            until(lambda: not self.run("squeue", "-h").strip())
        for daemon in (*(f"slurmd.{name}" for name in self._nodes), "slurmctld", "munged"):
            with contextlib.suppress(FileNotFoundError, ValueError):
                _end(self._pid(daemon))
        shutil.rmtree(self._here, ignore_errors=True)
        if self._groups:
            self._sweep()
            self._missed = [f"{each} was left by the Epilog" for each in self._missed_ones()]
            self._groups.remove()
        for name in self._nodes:
            for place in cgroups.MOUNT.glob(f"*/slurm_{name}"):
                with contextlib.suppress(OSError):
                    place.rmdir()
            for scope in cgroups.MOUNT.glob(f"system.slice/{name}_slurmstepd.scope"):  # slurmd leaves it to systemd
                subprocess.run(["systemctl", "stop", scope.name], check=False)


def _without(conf: str, others: str) -> str:
    """Return the settings in ``conf`` whose keys ``others`` doesn't set."""
    named = {line.partition("=")[0] for line in others.splitlines()}
    return "".join(line + "\n" for line in conf.splitlines() if line.partition("=")[0] not in named)


def _end(pid: int) -> None:
    try:
        end(pid)
    except AssertionError:
        end(pid, signal.SIGKILL)


def _user() -> str:
    import pwd  # noqa: PLC0415

    return pwd.getpwuid(os.geteuid()).pw_name


def _free_ports(count: int) -> list[int]:
    """Return free ports below the range from which the kernel chooses ports for others."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    for port in random.sample(range(lowest // 2, lowest), lowest // 2):
        with contextlib.suppress(OSError), socket.socket() as each:
            each.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            break
    return found


@contextlib.contextmanager
def running(cluster: Cluster) -> Iterator[Cluster]:
    """Run a cluster in the block and stop it afterwards."""
    try:
        yield cluster
    finally:
        cluster.stop()
