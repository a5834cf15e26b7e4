"""A control group around one build: a bound on memory and processes, and an account of what was used.

Theory of operation: the group is made below the daemon's own, on cgroup v1 or v2 (:mod:`spoold.host.cgroups`), and the
program joins it before it becomes anything else, so every builder is inside. Its limits are the evidence for the
verdicts "memory limit" and "process limit".

A build is not always the worse for what the kernel does to it: a configure script takes the compiler that was killed
for one that cannot compile, and goes on, to an output that is wrong and stands under the right name. So whatever the
kernel kills in the group, or refuses a process to, is the end of the group, before Nix can register anything, and the
build has failed whatever its exit code:

* v2: memory.oom.group has the kernel kill all of the group at once, whoever's memory ran out.
* v1: memory.oom_control has it kill nothing; who wants more memory waits, and the event ends the group. It comes for
  the groups above as well, if it is them who have no more: then it is every build's. Of what the kernel kills for want
  of the host's memory, a count tells, a moment later.
* both: pids.current tells that there are too many processes, before the kernel refuses one, and pids.events that it
  has.

Some things the host has for all (:mod:`spoold.nix.shortage`). Where these run out, every build that runs has met it.

A group above ours may have a limit too, such as a unit's MemoryMax=, for all builds together. No build gets more than
that leaves, so that one which is too large ends at its own limit. One that was killed because several took too much
together has done nothing wrong: that is ours, and it is tried again.

Where no group can be made, builds run without this bound, and :func:`available` says so, for the operator to be told.
Then nothing tells whose process it was that the kernel killed for want of memory: so it is every build's.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from spoold.host import cgroups, proc, userns
from spoold.model.errors import TemporaryError
from spoold.nix import shortage

PREFIX = "spoold-build-"
PROCESSES = 4096
SPARE = 2  # times as many are possible, so that what has too many is ended before anything is refused
OTHERS_MEMORY = "memory ran out: that of all builds together, see MemoryMax= of the unit, or the host's"
SOMEBODYS_MEMORY = (
    "the kernel killed a process for want of memory, and where builds have no control group nobody knows whose it was"
)
OTHERS_PROCESSES = "processes ran out: those of all builds together, see TasksMax= of the unit"
NEAR = 1024**2  # bytes below its limit at which a group has met it: the kernel hands memory out in batches
DYING_TIME = 20.0  # seconds for killed processes to be gone
SPARED = 16  # the share, one in so many, of the memory of all builds that the daemon has for itself
_JOIN = 'while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs" || exit 126; shift; done; shift; exec "$@"'


class Cage:
    """A group that exists. ``groups`` maps a controller to its directory; one and the same on v2."""

    def __init__(self, groups: dict[str, Path]) -> None:
        self.groups = groups
        self.memory = self.processes = 0  # bytes, and how many, once there are limits
        self._kills_before = _kills()
        self._short = False  # whether memory ran out, of v1, which kills nothing then

    def joining(self, argv: list[str]) -> list[str]:
        """Return the command that joins the group and then becomes ``argv``."""
        directories = [str(path) for path in dict.fromkeys(self.groups.values())]
        return [proc.find("sh"), "-c", _JOIN, "sh", *directories, "--", *argv] if directories else argv

    def limit(self, memory: int, processes: int) -> None:
        """Set the bounds: no swap beside the memory."""
        memory = self.memory = min(memory, self._left())
        self.processes = processes
        for controller, names, value in (
            ("memory", ("memory.max", "memory.limit_in_bytes"), memory),
            ("memory", ("memory.memsw.limit_in_bytes",), memory),
            ("memory", ("memory.swap.max",), 0),
            ("memory", ("memory.oom.group", "memory.oom_control"), 1),
            ("pids", ("pids.max",), processes * SPARE),
        ):
            for name in names:
                file = self._file(controller, name)
                if file.exists():
                    file.write_text(str(value))

    def _file(self, controller: str, name: str) -> Path:
        return self.groups.get(controller, Path("/nowhere")) / name

    def _left(self) -> int:
        """Return what the groups above ours leave to one of us, in bytes."""
        above = self.groups.get("memory", Path("/nowhere")).parent
        bound = _number(above / "memory.max")
        if bound is None:
            bound = _fields(above / "memory.stat").get("hierarchical_memory_limit", sys.maxsize)  # v1
        return bound - bound // SPARED

    @contextlib.contextmanager
    def alarms(self) -> Iterator[list[proc.Alarm]]:
        """Yield what ends a program in the group once the kernel has killed one of its processes, or refused one."""
        with contextlib.ExitStack() as held:
            shortage = -1
            with contextlib.suppress(OSError):
                shortage = held.enter_context(_shortage(self._file("memory", "memory.oom_control")))
            yield [proc.Alarm(lambda: self._ended_by(shortage), shortage)]

    def _ended_by(self, shortage: int) -> tuple[proc.Limit, str] | None:
        if shortage >= 0:
            with contextlib.suppress(BlockingIOError):
                self._short = os.eventfd_read(shortage) > 0
        return self.pressed()

    def pressed(self) -> tuple[proc.Limit, str] | None:
        """Return what the kernel has kept from the group, and in which words to say so; None where nothing."""
        return self._short_of_memory() or self._short_of_processes() or _short_of_the_host()

    def _short_of_memory(self) -> tuple[proc.Limit, str] | None:
        if "memory" not in self.groups:
            return (proc.Limit.HOST, SOMEBODYS_MEMORY) if _kills() != self._kills_before else None
        memory = _fields(self._file("memory", "memory.events")) | _fields(self._file("memory", "memory.oom_control"))
        if not (self._short or memory.get("oom_kill", 0) or memory.get("under_oom", 0)):
            return None
        if self._at_own_limit(memory):
            return proc.Limit.MEMORY, f"more than {self.memory} bytes of memory"
        return proc.Limit.HOST, OTHERS_MEMORY

    def _short_of_processes(self) -> tuple[proc.Limit, str] | None:
        refused = _fields(self._file("pids", "pids.events")).get("max", 0)
        most = max(_number(self._file("pids", name)) or 0 for name in ("pids.current", "pids.peak"))
        if most > self.processes or (refused and not self._file("pids", "pids.peak").exists()):
            return proc.Limit.PROCESSES, f"more than {self.processes} processes"
        return (proc.Limit.HOST, OTHERS_PROCESSES) if refused else None

    def _at_own_limit(self, memory: dict[str, int]) -> bool:
        """Tell whether it was this group's own limit that struck, and none above it."""
        if "oom" in memory:  # v2 counts it
            return memory["oom"] > 0
        peak = _number(self._file("memory", "memory.max_usage_in_bytes")) or 0
        return peak >= self.memory - NEAR

    def accounted(self, finished: proc.Finished) -> proc.Finished:
        """Return ``finished`` with what all processes of the group used, and with the limit that struck, if one did.

        Raises :class:`TemporaryError` where it was not this group's, but one above it or the host's.
        """
        pressed = self.pressed()
        if finished.limit not in (None, proc.Limit.MEMORY, proc.Limit.PROCESSES, proc.Limit.HOST):
            pressed = None  # it was stopped for something else
        limit, reason = pressed or (finished.limit, finished.reason)
        if limit is proc.Limit.HOST:
            raise TemporaryError(reason)
        peak = _number(self._file("memory", "memory.peak")) or _number(
            self._file("memory", "memory.max_usage_in_bytes")
        )
        return msgspec.structs.replace(
            finished,
            memory=finished.memory if peak is None else peak,
            cpu=self._cpu(finished.cpu),
            limit=limit,
            reason=reason,
        )

    def _cpu(self, default: float) -> float:
        group = self.groups.get("cpuacct", Path("/nowhere"))
        nanoseconds = _number(group / "cpuacct.usage")
        microseconds = _fields(group / "cpu.stat").get("usage_usec")
        if nanoseconds is not None:
            return nanoseconds / 1e9
        return default if microseconds is None else microseconds / 1e6


@contextlib.contextmanager
def cage(memory: int) -> Iterator[Cage]:
    """Make a group, and remove it afterwards; without the right to make one, a cage that holds nothing."""
    name = f"{PREFIX}{os.getpid()}-{_birth(os.getpid())}-{os.urandom(4).hex()}"
    made = Cage({})
    try:
        for controller, parent in cgroups.parents().items():
            with contextlib.suppress(OSError):
                (parent / name).mkdir(exist_ok=True)
                made.groups[controller] = parent / name
        made.limit(memory, most_processes())
        yield made
    finally:
        for group in set(made.groups.values()):
            _remove(group)


def most_processes() -> int:
    """Return how many processes a build may have: PROCESSES, or so many that all builds find room for theirs."""
    user, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    there = shortage.most_processes() if user == resource.RLIM_INFINITY else min(user, shortage.most_processes())
    return min(PROCESSES, there // userns.SHARES)


def available() -> bool:
    """Tell whether builds are bounded in memory on this host."""
    with cage(1 << 40) as made:
        return "memory" in made.groups


def sweep() -> None:
    """Remove the groups of daemons that were killed, and kill what is still in them."""
    for parent in set(cgroups.parents().values()):
        for group in parent.glob(f"{PREFIX}*"):
            pid, _, rest = group.name.removeprefix(PREFIX).partition("-")
            if not pid.isdigit() or _birth(int(pid)) != rest.partition("-")[0]:
                _kill(group)
                _remove(group)


@contextlib.contextmanager
def _shortage(file: Path) -> Iterator[int]:
    """Yield an eventfd that tells when a group of v1 has no more memory; ``file`` is its memory.oom_control.

    See "OOM Control" in Documentation/admin-guide/cgroup-v1/memory.rst of the kernel.
    """
    with file.open("rb") as control:
        shortage = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            file.with_name("cgroup.event_control").write_text(f"{shortage} {control.fileno()}")
            yield shortage
        finally:
            os.close(shortage)


def _birth(pid: int) -> str:
    """When a process started, in the kernel's ticks: with the pid, a name that no other process ever has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _kill(group: Path) -> None:
    with contextlib.suppress(OSError):
        for pid in (group / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)


def _remove(group: Path) -> None:
    """Remove a group, whose last processes may still be dying; on a busy machine that may take a while."""
    until = time.monotonic() + DYING_TIME
    while True:
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        if not group.exists() or time.monotonic() > until:
            return
        time.sleep(0.01)


def _short_of_the_host() -> tuple[proc.Limit, str] | None:
    reason = shortage.of_host()
    return (proc.Limit.HOST, reason) if reason else None


def _kills() -> int:
    """Return how many processes the kernel has killed on this host for want of memory."""
    return _fields(Path("/proc/vmstat")).get("oom_kill", 0)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _fields(file: Path) -> dict[str, int]:
    try:
        pairs = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {name: int(value) for name, value in pairs if value.isdigit()}
