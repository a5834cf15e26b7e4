"""A control group around one build: a bound on memory and processes, and an account of what the build used.

Theory of operation: the group is made below the daemon's own, on cgroup v1 or v2 (:mod:`spoold.host.cgroups`). The
program joins the group before it becomes anything else, so every builder is inside. The group's limits are the evidence
for the verdicts "memory limit" and "process limit".

A build does not always fail when the kernel kills one of its processes. A configure script may take a killed compiler
for one that cannot compile, and go on to a wrong output under the right name. So the whole group is ended as soon as
the kernel kills a process in it or refuses it a new one, before Nix can register anything. The build has then failed,
whatever its exit code:

* v2: memory.oom.group makes the kernel kill the whole group at once, whichever memory ran out.
* v1: memory.oom_control makes the kernel kill nothing. A process that wants more memory waits, and an event tells
  spoold to end the group. The event also comes when a group above has no more memory. In that case every build ends.
  When the kernel kills processes because the host has no more memory, a counter shows it a moment later.
* both: pids.current tells that there are too many processes before the kernel refuses one, and pids.events that it has.

All programs share some resources of the host (:mod:`spoold.nix.shortage`). When one of these runs out, every running
build may have been refused it.

A group above ours may have a limit for all builds together, such as a unit's MemoryMax=. The limit of each build stays
below that, so that a build that is too large ends at its own limit. A build may also be killed because several builds
together took too much. That is not its fault, and it is tried again.

Where no group can be made, builds run without this bound. :func:`available` tells so, and the operator gets a warning.
Nothing then tells whose process the kernel killed for want of memory, so every running build is ended.
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
SPARE = 2  # times as many processes are possible, so that a build with too many ends before the kernel refuses one
OTHERS_MEMORY = "all builds together ran out of memory: raise MemoryMax= of the unit, or give the host more"
SOMEBODYS_MEMORY = (
    "memory ran out, and the kernel killed a process. Builds have no control group here, so nobody knows whose it was"
)
OTHERS_PROCESSES = "all builds together ran out of processes: raise TasksMax= of the unit"
NEAR = 1024**2  # this many bytes below its limit a group has reached it: the kernel hands out memory in batches
DYING_TIME = 20.0  # seconds for killed processes to be gone
SPARED = 16  # of the memory of all builds, the daemon keeps one part in this many for itself
_JOIN = 'while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs" || exit 126; shift; done; shift; exec "$@"'


class Cage:
    """A group that exists. ``groups`` maps each controller to its directory. On v2 it is the same for all."""

    def __init__(self, groups: dict[str, Path]) -> None:
        self.groups = groups
        self.memory = self.processes = 0  # the limits: bytes, and a count. 0 until they are set
        self._kills_before = _kills()
        self._short = False  # whether memory ran out on v1, where the kernel then kills nothing

    def joining(self, argv: list[str]) -> list[str]:
        """Return the command that joins the group and then becomes ``argv``."""
        directories = [str(path) for path in dict.fromkeys(self.groups.values())]
        return [proc.find("sh"), "-c", _JOIN, "sh", *directories, "--", *argv] if directories else argv

    def limit(self, memory: int, processes: int) -> None:
        """Set the limits: ``memory`` bytes without swap, and a count of ``processes``."""
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
        """Return the bytes of memory that the groups above leave to one build."""
        above = self.groups.get("memory", Path("/nowhere")).parent
        bound = _number(above / "memory.max")
        if bound is None:
            bound = _fields(above / "memory.stat").get("hierarchical_memory_limit", sys.maxsize)  # v1
        return bound - bound // SPARED

    @contextlib.contextmanager
    def alarms(self) -> Iterator[list[proc.Alarm]]:
        """Yield the alarm that ends a program in the group once the kernel has killed or refused it a process."""
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
        """Return which resource the kernel has refused to the group, with words for it, or None where it has not."""
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
        """Tell whether this group's own limit was reached, and not one above it."""
        if "oom" in memory:  # v2 counts how often the group reached it
            return memory["oom"] > 0
        peak = _number(self._file("memory", "memory.max_usage_in_bytes")) or 0
        return peak >= self.memory - NEAR

    def accounted(self, finished: proc.Finished) -> proc.Finished:
        """Return ``finished`` with what all processes of the group used, and with the limit that was reached, if any.

        Raises :class:`TemporaryError` where that was not this group's limit, but one above it or the host's.
        """
        pressed = self.pressed()
        if finished.limit not in (None, proc.Limit.MEMORY, proc.Limit.PROCESSES, proc.Limit.HOST):
            pressed = None  # it was stopped for another reason
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
    """Make a group, and remove it afterwards. Without the right to make one, yield a cage that bounds nothing."""
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
    """Return how many processes a build may have: PROCESSES, or fewer where all builds together could not have that."""
    user, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    there = shortage.most_processes() if user == resource.RLIM_INFINITY else min(user, shortage.most_processes())
    return min(PROCESSES, there // userns.SHARES)


def available() -> bool:
    """Tell whether the memory of builds is bounded on this host."""
    with cage(1 << 40) as made:
        return "memory" in made.groups


def sweep() -> None:
    """Remove the groups of daemons that were killed, and kill the processes that are still in them."""
    for parent in set(cgroups.parents().values()):
        for group in parent.glob(f"{PREFIX}*"):
            pid, _, rest = group.name.removeprefix(PREFIX).partition("-")
            if not pid.isdigit() or _birth(int(pid)) != rest.partition("-")[0]:
                _kill(group)
                _remove(group)


@contextlib.contextmanager
def _shortage(file: Path) -> Iterator[int]:
    """Yield an eventfd that tells when a group of v1 has no more memory.

    ``file`` is the group's memory.oom_control. See "OOM Control" in Documentation/admin-guide/cgroup-v1/memory.rst of
    the kernel.
    """
    with file.open("rb") as control:
        shortage = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            file.with_name("cgroup.event_control").write_text(f"{shortage} {control.fileno()}")
            yield shortage
        finally:
            os.close(shortage)


def _birth(pid: int) -> str:
    """Return when a process started, in the kernel's ticks. No other process ever has the same pid and start."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _kill(group: Path) -> None:
    with contextlib.suppress(OSError):
        for pid in (group / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)


def _remove(group: Path) -> None:
    """Remove a group. Its last processes may still be dying, which takes a while on a busy machine."""
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
