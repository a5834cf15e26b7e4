"""The blows: what happens to pilots, to Slurm's daemons and to the head's. Each says to whom, "" where to nobody.

A blow that kills a pilot, or has Slurm kill it without a word, dooms it. After all others it can drain.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable

from tests.storms.field import Field
from tests.storms.witness import Pilot

Blow = Callable[["Weather"], str]
OTHERS = "others"  # the name of jobs that are no pilots
AWAY = (0.5, 8.0)  # seconds for which a daemon of Slurm's is away
ROUNDS = 5.0  # seconds between two looks at the nodes, while something is waited for


class Weather:
    """The field and chance, for all blows. Nodes that are down come back by :meth:`mend`."""

    def __init__(self, field: Field, chance: random.Random) -> None:
        self.field, self.chance = field, chance
        self.down: list[str] = []  # nodes without their slurmd
        self.cluster, self.witness = field.cluster, field.witness

    def pilot(self) -> Pilot | None:
        """Return one of the pilots."""
        found = self.witness.pilots()
        return self.chance.choice(found) if found else None

    def mend(self) -> None:
        """Start the slurmds that are away. Slurm may kill what ran on their nodes meanwhile, seen or still starting."""
        while self.down:
            node = self.down.pop()
            self.witness.doom_all(node)
            self.cluster.start_node(node)

    def tidy(self) -> None:
        """Do what an operator would: resume the nodes that Slurm drained, and cancel what should be over.

        A slurmctld that was killed may not have heard of an end, and then counts a job as running for minutes.
        """
        for line in self.cluster.run("sinfo", "-h", "-N", "-o", "%N %T").splitlines():
            node, state = line.split()
            if node not in self.down and ("drain" in state or state.startswith("down")):
                self.told("scontrol", "update", f"NodeName={node}", "State=RESUME")
        self.told("scancel", f"--name={OTHERS}")

    def wait(self) -> None:
        """Let something be away for a while."""
        time.sleep(self.chance.uniform(*AWAY))

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait as the field does, and be the operator meanwhile: both nodes may be away, or drained."""
        looked = time.monotonic()

        def holds() -> bool:
            nonlocal looked
            if condition():
                return True
            if time.monotonic() - looked >= ROUNDS:
                self.mend()
                self.tidy()
                looked = time.monotonic()
            return False

        self.field.until(holds, what)

    def running(self) -> set[str]:
        """Return the jobs that run, as slurmctld says once it answers: a line for each, with id and time of start."""
        found: list[str] = []

        def answers() -> bool:
            try:
                found[:] = self.cluster.run("squeue", "-h", "-t", "RUNNING", "-o", "%i %S").splitlines()
            except AssertionError:
                return False
            return True

        self.field.until(answers, "slurmctld does not answer")
        return set(found)

    def doom_forgotten(self, before: set[str]) -> None:
        """Doom the pilots of which slurmctld, which was away, knows less than ``before``. It has them killed.

        It may have given the id of a job that it forgot to another one by now.
        """
        self.witness.doom_all(known=[line.split()[0] for line in before & self.running()])

    def told(self, *words: str) -> bool:
        """Run a command of Slurm's; tell whether it worked. A job may have ended just now."""
        try:
            self.cluster.run(*words)
        except AssertionError:
            return False
        return True


def kill_executor(weather: Weather) -> str:
    """SIGKILL to the group of a pilot."""
    if not (pilot := weather.pilot()):
        return ""
    weather.witness.doom(pilot)
    _kill(pilot.pid, group=True)
    return pilot.process


def kill_step_daemon(weather: Weather) -> str:
    """SIGKILL to the slurmstepd of a pilot."""
    if not (pilot := weather.pilot()):
        return ""
    weather.witness.doom(pilot)
    try:
        _kill(pilot.step_daemon)
    except OSError:  # it has ended, or its slurmstepd was killed before
        return ""
    return pilot.process


def kill_node_daemon(weather: Weather) -> str:
    """SIGKILL to a slurmd. Where it is back, Slurm may kill what ran there."""
    if not (pilot := weather.pilot()) or pilot.node in weather.down:
        return ""
    weather.witness.doom(*(each for each in weather.witness.pilots() if each.node == pilot.node))
    weather.cluster.kill_node(pilot.node)
    weather.down.append(pilot.node)
    return pilot.node


def lose_node(weather: Weather) -> str:
    """SIGKILL to all that runs on a node."""
    if not (pilot := weather.pilot()) or pilot.node in weather.down:
        return ""
    weather.cluster.kill_node(pilot.node)
    weather.down.append(pilot.node)
    for each in weather.witness.pilots():
        if each.node == pilot.node:
            weather.witness.doom(each)
            with contextlib.suppress(OSError):
                _kill(each.step_daemon)
            _kill(each.pid, group=True)
    return pilot.node


def kill_controller(weather: Weather) -> str:
    """SIGKILL to slurmctld. It may not have saved that a pilot began, and has that one killed then."""
    before = weather.running()
    weather.cluster.kill_controller()
    weather.wait()
    weather.cluster.start_controller()
    weather.doom_forgotten(before)
    return "slurmctld"


def forget(weather: Weather) -> str:
    """SIGKILL to slurmctld, which comes back with an old state, and has all younger pilots killed."""
    weather.told("scontrol", "reconfigure")  # saves the state
    weather.cluster.keep_state()
    before = weather.running()
    weather.wait()
    weather.cluster.kill_controller()
    weather.cluster.forget()
    weather.witness.doom_all()
    weather.cluster.start_controller()
    weather.doom_forgotten(before)
    return "slurmctld"


def kill_daemon(weather: Weather) -> str:
    """SIGKILL to another daemon of the head."""
    role = weather.chance.choice(("intake", "executor", "builder", "health"))
    weather.field.restart(role)
    return role


def kill_scaler(weather: Weather) -> str:
    """SIGKILL to the scaler."""
    weather.field.restart("scale")
    return "scale"


def cancel(weather: Weather) -> str:
    """Cancel a pilot's job by hand."""
    pilot = weather.pilot()
    return pilot.process if pilot and weather.told("scancel", pilot.job) else ""


def requeue(weather: Weather) -> str:
    """Say that a pilot's job may be requeued, and requeue it."""
    pilot = weather.pilot()
    if not pilot or not weather.told("scontrol", "update", f"JobId={pilot.job}", "Requeue=1"):
        return ""
    return pilot.process if weather.told("scontrol", "requeue", pilot.job) else ""


def preempt(weather: Weather) -> str:
    """Have both nodes wanted for something else."""
    wanted = (
        f"--job-name={OTHERS}",
        "--partition=high",
        "--nodes=2",
        "--exclusive",
        "--output=/dev/null",
        "--wrap=sleep 1",
    )
    return "both nodes" if weather.told("sbatch", *wanted) else ""


BLOWS: tuple[Blow, ...] = (
    kill_executor,
    kill_step_daemon,
    kill_node_daemon,
    lose_node,
    kill_controller,
    forget,
    kill_daemon,
    kill_scaler,
    cancel,
    requeue,
    preempt,
)


def _kill(pid: int, *, group: bool = False) -> None:
    with contextlib.suppress(ProcessLookupError):
        if group and os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
