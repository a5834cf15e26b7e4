"""A control group around one build: a bound on memory and processes, and an account of what was used.

Theory of operation: the group is made below the daemon's own, on cgroup v1 or v2, and the program joins it before it
becomes anything else, so every builder is inside. The kernel kills what outgrows it, and counts that it did, which is
the evidence for the verdict "memory limit".

On v2 a group that holds processes cannot have limited children. So whatever is in our own group, as a rule the daemon
alone, first goes into a group ``daemon`` below it. That takes a group that is ours to divide: systemd marks those
(Delegate=yes, of a service as of a scope), gives an ordinary user those that are his, and manages all others itself.
Where there is no systemd, whoever may write there may do so.

A group above ours may have a limit too, such as a unit's MemoryMax=, for all builds together. No build gets more than
that leaves, so that one which is too large ends at its own limit. One that was killed because several took too much
together has done nothing wrong: that is ours, and it is tried again.

Where no group can be made, builds run without this bound, and :func:`available` says so, for the operator to be told.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from spoold.host import proc
from spoold.model.errors import TemporaryError

MOUNT = Path("/sys/fs/cgroup")
SYSTEMD = Path("/run/systemd/system")  # is there when it is process 1, as sd_booted(3) has it
DELEGATED = ("user.delegate", "trusted.delegate")  # the first since systemd 251, the second for root to read
PREFIX = "spoold-build-"
PROCESSES = 4096
SPARED = 16  # the share, one in so many, of the memory of all builds that the daemon has for itself
LEAF = "daemon"
MAKING_WAY = 10  # times that we begin again when new processes come up meanwhile
_JOIN = 'while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs" || exit 126; shift; done; shift; exec "$@"'


class Cage:
    """A group that exists. ``groups`` maps a controller to its directory; one and the same on v2."""

    def __init__(self, groups: dict[str, Path]) -> None:
        self.groups = groups
        self.memory = 0  # bytes, once there is a limit

    def joining(self, argv: list[str]) -> list[str]:
        """Return the command that joins the group and then becomes ``argv``."""
        directories = [str(path) for path in dict.fromkeys(self.groups.values())]
        return [proc.find("sh"), "-c", _JOIN, "sh", *directories, "--", *argv] if directories else argv

    def pids(self) -> list[int]:
        """Return the processes in the group as we see them; none where there is no group."""
        for group in self.groups.values():
            with contextlib.suppress(OSError):
                return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
        return []

    def limit(self, memory: int, processes: int) -> None:
        """Set the bounds: no swap beside the memory."""
        memory = self.memory = min(memory, self._left())
        for controller, names, value in (
            ("memory", ("memory.max", "memory.limit_in_bytes"), memory),
            ("memory", ("memory.memsw.limit_in_bytes",), memory),
            ("memory", ("memory.swap.max",), 0),
            ("pids", ("pids.max",), processes),
        ):
            for name in names:
                file = self.groups.get(controller, Path("/nowhere")) / name
                if file.exists():
                    file.write_text(str(value))

    def _left(self) -> int:
        """Return what the group above ours leaves to one of us, in bytes."""
        bound = _number(self.groups.get("memory", Path("/nowhere")).parent / "memory.max")
        return sys.maxsize if bound is None else bound - bound // SPARED

    def accounted(self, finished: proc.Finished) -> proc.Finished:
        """Return ``finished`` with what all processes of the group used, and with the verdict where memory ran out.

        Raises :class:`TemporaryError` where it did not run out in this group, but in one above it or on the host.
        """
        memory = self.groups.get("memory", Path("/nowhere"))
        peak = _number(memory / "memory.peak") or _number(memory / "memory.max_usage_in_bytes")
        killed = _fields(memory / "memory.events") | _fields(memory / "memory.oom_control")
        out_of_memory = killed.get("oom_kill", 0) > 0 and not finished.ok and finished.limit is None
        if out_of_memory and killed.get("oom") == 0:  # which v1 does not count
            raise TemporaryError(
                "memory ran out: that of all builds together, see MemoryMax= of the unit, or the host's"
            )
        return msgspec.structs.replace(
            finished,
            memory=finished.memory if peak is None else peak,
            cpu=self._cpu(finished.cpu),
            limit=proc.Limit.MEMORY if out_of_memory else finished.limit,
            reason=f"more than {self.memory} bytes of memory" if out_of_memory else finished.reason,
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
        for controller, parent in _parents().items():
            with contextlib.suppress(OSError):
                (parent / name).mkdir(exist_ok=True)
                made.groups[controller] = parent / name
        made.limit(memory, PROCESSES)
        yield made
    finally:
        for group in set(made.groups.values()):
            _remove(group)


def available() -> bool:
    """Tell whether builds are bounded in memory on this host."""
    with cage(1 << 40) as made:
        return "memory" in made.groups


def delegable() -> bool:
    """Tell whether an ordinary user can be given groups here, which takes cgroup v2."""
    return (MOUNT / "cgroup.controllers").exists()


def sweep() -> None:
    """Remove the groups of daemons that were killed, and kill what is still in them."""
    for parent in set(_parents().values()):
        for group in parent.glob(f"{PREFIX}*"):
            pid, _, rest = group.name.removeprefix(PREFIX).partition("-")
            if not pid.isdigit() or _birth(int(pid)) != rest.partition("-")[0]:
                _kill(group)
                _remove(group)


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


def _parents() -> dict[str, Path]:
    """Where groups can be made: a directory per controller."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in ("memory", "pids", "cpuacct"):
                found[controller] = MOUNT / controller / path.lstrip("/")
        if not controllers and delegable():
            found |= unified(MOUNT / path.lstrip("/"))
    return {controller: path for controller, path in found.items() if os.access(path, os.W_OK)}


def unified(own: Path) -> dict[str, Path]:
    """Where groups can be made on cgroup v2, for processes in the group ``own``."""
    parent = own.parent if own.name == LEAF else own
    if not _ours(parent):
        return {}
    for controller in ("memory", "pids"):
        with contextlib.suppress(OSError):
            _enable(parent, controller)
    with contextlib.suppress(OSError):
        enabled = (parent / "cgroup.subtree_control").read_text().split()
        if "memory" in enabled:
            return dict.fromkeys(("memory", "pids", "cpuacct"), parent)
    return {}


def _ours(group: Path) -> bool:
    """Tell whether a group is ours to divide, which not even root's are where systemd manages them."""
    if not SYSTEMD.is_dir():
        return True
    with contextlib.suppress(OSError):
        if group.stat().st_uid == os.geteuid() != 0:  # a user's own systemd marks nothing
            return True
    for name in DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(group, name) == b"1":
                return True
    return False


def _enable(group: Path, controller: str) -> None:
    """Have a controller divide among the groups below ``group``; the processes in it make way where they have to."""
    file = group / "cgroup.subtree_control"
    for _ in range(MAKING_WAY):
        if controller in file.read_text().split():
            return
        try:
            file.write_text(f"+{controller}")
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _make_way(group)


def _make_way(group: Path) -> None:
    """Move the processes of ``group`` into the one below it."""
    leaf = group / LEAF
    leaf.mkdir(exist_ok=True)
    for pid in (group / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            (leaf / "cgroup.procs").write_text(pid)


def _remove(group: Path) -> None:
    """Remove a group, whose last processes may still be dying."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.01)


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
