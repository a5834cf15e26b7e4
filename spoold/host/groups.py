"""Control groups of jobs: made below this process's own group, with limits, on both versions; see cgroups(7).

A group below our own stays within the limits of our own, such as those of a unit, or of a job of a batch system. On
version 1 each controller has a tree of its own, and this process may be in a different place in each tree.

A limit is a file of the kernel's. A write to the file changes the limit, and a read returns the limit in force.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from pathlib import Path
from typing import NamedTuple

from spoold.host import cgroups
from spoold.model.errors import OperatorError, TemporaryError

NEEDED, WANTED = ("memory", "pids"), ("cpu", "cpuset")
REMOVAL_TIMEOUT = 5.0  # seconds for the last process of a group to be gone
PAUSE = 0.005  # seconds between two tries to remove a group
REMEDY = (
    "start the executor in a control group of its own: by its unit with Delegate=yes, or by "
    "`systemd-run --scope -p Delegate=yes COMMAND` (with --user for an ordinary user)"
)
OF_A_BATCH_JOB = "SLURM_JOB_ID"  # Slurm sets it in its jobs
IN_A_JOB = (
    "let slurmd make one: install contrib/deploy/slurm-prolog and slurm-epilog on this node, as in `Executors that "
    "Slurm starts` in the operator's page"
)


class Groups(NamedTuple):
    """Where groups are made: ``bases`` has a directory for each controller, on version 2 (``unified``) always one."""

    unified: bool
    bases: dict[str, Path]

    def group(self, name: str) -> Group:
        """Return a group of this name, which may not be there yet."""
        return Group(self.unified, {controller: base / name for controller, base in self.bases.items()})

    def has(self, controller: str) -> bool:
        """Tell whether groups that are made here have that controller."""
        return controller in self.bases

    @property
    def same(self) -> bool:
        """Tell whether a group has the same path in all trees."""
        return self.unified or len({_below(cgroups.tree(name), base) for name, base in self.bases.items()}) == 1

    def path(self, group: Group) -> str:
        """Return the path of ``group`` as a runtime takes it: relative to our own group where the trees differ."""
        if self.same:
            return group.path
        own = cgroups.trees("")["memory"]
        return os.path.relpath(group.places["memory"], own)


class Group(NamedTuple):
    """A control group: its directory, by controller."""

    unified: bool
    places: dict[str, Path]

    @property
    def path(self) -> str:
        """Return its path from the root of the tree, on version 1 of the tree of memory."""
        return _below(cgroups.MOUNT if self.unified else cgroups.tree("memory"), self.places["memory"])

    def make(self, memory: int, processes: int) -> None:
        """Make it, with limits of ``memory`` bytes and that many ``processes``; raises :class:`TemporaryError`."""
        try:
            for place in dict.fromkeys(self.places[controller] for controller in NEEDED):
                place.mkdir()
        except OSError as error:
            raise TemporaryError(f"no control group can be made ({error}): {REMEDY}") from error
        self.limit(memory, processes)

    def weigh(self, *, halved: bool) -> None:
        """Give it the share of the CPU that all groups have by default, or half of that."""
        name, full = ("cpu.weight", 100) if self.unified else ("cpu.shares", 1024)
        if "cpu" in self.places:
            self._write("cpu", name, full // 2 if halved else full, where_there=True)

    def limit(self, memory: int, processes: int) -> None:
        """Give it other limits. Memory is not swapped."""
        if self.unified:
            self._write("memory", "memory.max", memory)
            self._write("memory", "memory.swap.max", 0, where_there=True)
        else:
            names = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]  # the second is never below the first
            if memory > self.memory():
                names.reverse()
            for name in names:
                self._write("memory", name, memory, where_there=name == "memory.memsw.limit_in_bytes")
        self._write("pids", "pids.max", processes)

    def pin(self, cpu: int) -> None:
        """Bind all of it to one CPU."""
        self._write("cpuset", "cpuset.cpus", cpu)

    def memory(self) -> int:
        """Return its limit of memory in bytes, a very large number where it has none."""
        found = self._read("memory", "memory.max" if self.unified else "memory.limit_in_bytes").strip()
        return int(found) if found.isdecimal() else 1 << 63

    def oom_kills(self) -> int:
        """Return how many of its processes the kernel killed because memory ran out."""
        text = self._read("memory", "memory.events" if self.unified else "memory.oom_control")
        return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)

    def holds(self, pid: int) -> bool:
        """Tell whether a process is in it, in each tree whose limits count."""
        return all(str(pid) in self._read(name, "cgroup.procs").split() for name in NEEDED)

    def end(self) -> None:
        """End all that is in it, and remove it; raises :class:`TemporaryError` where something does not end."""
        deadline, is_late = time.monotonic() + REMOVAL_TIMEOUT, False
        while not self._removed():
            if is_late:  # raised only after one more try: this process may have stood still before
                raise TemporaryError(
                    f"a control group cannot be removed, since a process in it does not end: {self.path}"
                )
            for pid in self._processes():
                self._kill(pid)
            is_late = time.monotonic() > deadline
            time.sleep(PAUSE)

    def _removed(self) -> bool:
        gone = True
        for place in dict.fromkeys(self.places.values()):
            try:
                place.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone

    def _processes(self) -> list[int]:
        return sorted({int(pid) for name in NEEDED for pid in self._read(name, "cgroup.procs").split()})

    def _kill(self, pid: int) -> None:
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
            try:
                if pid in self._processes():  # else the pid is another process's by now
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)

    def _read(self, controller: str, name: str) -> str:
        try:
            return (self.places[controller] / name).read_text()
        except OSError:
            return ""

    def _write(self, controller: str, name: str, value: int, *, where_there: bool = False) -> None:
        file = self.places[controller] / name
        if where_there and not file.exists():
            return
        try:
            file.write_text(str(value))
        except OSError as error:
            raise TemporaryError(f"a limit cannot be set: {file}: {error.strerror}") from error


def settle() -> Groups:
    """Return where this process can make groups with limits; raises :class:`OperatorError` where it cannot."""
    unified = cgroups.delegable()
    bases = _unified() if unified else _by_tree()
    missing = [name for name in NEEDED if name not in bases or not os.access(bases[name], os.W_OK)]
    if missing:
        also = "" if unified else ". With cgroup v1 only root gets one, see Engines in the operator's page"
        remedy = IN_A_JOB if os.environ.get(OF_A_BATCH_JOB) else f"{REMEDY}{also}"
        raise OperatorError(f"no control group can be made that limits {' and '.join(missing)}: {remedy}")
    return Groups(unified, bases)


def _unified() -> dict[str, Path]:
    own = cgroups.own_group()
    parent = cgroups.unified(own, *WANTED).get("memory")
    if parent is None and (given := cgroups.beside(own, cgroups.OF_JOBS)) is not None:
        parent = cgroups.divided(given, *WANTED).get("memory")
    if parent is None:
        return {}
    enabled = (parent / "cgroup.subtree_control").read_text().split()
    return {name: parent for name in (*NEEDED, *WANTED) if name in enabled}


def _by_tree() -> dict[str, Path]:
    """Return the same place below our own group in each tree, since a runtime takes one path for all of them."""
    own = cgroups.trees("")
    if all((own[name] / cgroups.OF_JOBS).is_dir() for name in NEEDED if name in own):
        return {name: place / cgroups.OF_JOBS for name, place in own.items()}
    return own


def _below(tree: Path, place: Path) -> str:
    return "/" + str(place.relative_to(tree)).removeprefix(".")


def ended(pidfd: int, patience: float) -> bool:
    """Tell whether a process ends within ``patience`` seconds."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(patience * 1000))
