"""The witness: sees which pilots there are, and which of them holds which attempt of a submission."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from spoold.host import machine

POOL = "pool"
LOOK = 0.1  # seconds between two looks
SILENT = 300  # looks at what is not renewed; a machine that stands still takes one of them
OLD = (1.0, 1.0)  # times of a file


class Pilot(NamedTuple):
    """A pilot that runs: its process in the spool's words and the kernel's, its job, and its node."""

    process: str
    pid: int
    job: str
    node: str

    @property
    def step_daemon(self) -> int:
        """Return the process that Slurm started it by; raises :class:`OSError` where one of both has ended."""
        parent = _stat(self.pid)[1]
        if Path(f"/proc/{parent}/comm").read_text() != "slurmstepd\n":  # another process has adopted the pilot
            raise ProcessLookupError(parent)
        return int(parent)


class Doom(NamedTuple):
    """Pilots that Slurm may kill without a word: those that began before a time, on a ``node``, or on all where None.

    ``time`` is in the kernel's ticks since the machine started. Jobs that are ``known`` to Slurm are spared.
    """

    time: int
    node: str | None
    known: frozenset[str]

    def meets(self, pilot: Pilot) -> bool:
        """Tell whether a pilot that runs is one of them."""
        began = int(_stat(pilot.pid)[19])
        return began <= self.time and self.node in (None, pilot.node) and pilot.job not in self.known


def _stat(pid: int) -> list[str]:
    """Return what the kernel says of a process, from its state on; see proc_pid_stat(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


class Witness(threading.Thread):
    """Looks at a spool until ``end``. With ``hasten`` it has the leases of the dead run out at once.

    Leases can then be as long as no machine stands still, and nothing waits for them.
    """

    def __init__(self, spool: Path, *, hasten: bool) -> None:
        super().__init__(name="witness", daemon=True)
        self._spool, self._hasten = spool, hasten
        self._over = threading.Event()
        self._unchanged: dict[Path, tuple[int, int]] = {}  # by file, the mtime in ns and the looks that saw it
        self._alive: dict[str, int] = {}  # pids of pilots, by their processes
        self.holders: defaultdict[str, set[int]] = defaultdict(set)  # pids, by the names of entries
        self.doomed: set[int] = set()  # pids of pilots that had no chance to drain
        self._dooms: list[Doom] = []
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            while not self._over.wait(LOOK):
                self._look()
        except Exception as error:  # noqa: BLE001 - the verdict raises it
            self.failure = error

    def end(self) -> None:
        """End, after one more look."""
        self._over.set()
        self.join()

    def pilots(self) -> list[Pilot]:
        """Return the pilots that run now."""
        locks = sorted((self._spool / "tmp").glob(f"executor-{POOL}-*.lock"))
        found = [
            _pilot(lock.name.removesuffix(".lock"), pid)
            for lock in locks
            for pid in machine.lock_holders(str(lock)) or []
        ]
        return [each for each in found if each]

    def doom(self, *pilots: Pilot) -> None:
        """Note pilots that are killed, or may be, without a word."""
        self.doomed.update(pilot.pid for pilot in pilots)

    def doom_all(self, node: str | None = None, known: Collection[str] = ()) -> None:
        """Note the same of all pilots that have begun by now on a node, or anywhere, but for the jobs that are known.

        That includes those that nobody sees yet, because they are still starting.
        """
        since_start = time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
        self._dooms.append(Doom(int(since_start), node, frozenset(known)))
        self._judge(self.pilots())

    def _judge(self, pilots: Iterable[Pilot]) -> None:
        for pilot in pilots:
            with contextlib.suppress(OSError):  # it has just ended
                if pilot.pid not in self.doomed and any(doom.meets(pilot) for doom in self._dooms):
                    self.doom(pilot)

    def _look(self) -> None:
        pilots = self.pilots()
        self._judge(pilots)
        alive: dict[str, int] = {}
        cared_for: set[str] = set()
        for pilot in pilots:
            alive[pilot.process] = pilot.pid
            held = self._held(pilot.process)
            cared_for.update(held, [f"{pilot.process}.host"])
            for name in held:
                self.holders[name].add(pilot.pid)
        for process, pid in self._alive.items():
            if process not in alive and not self._bury(process, pid):
                alive[process] = pid
        self._alive = alive
        if self._hasten:
            self._look_for_silent_ones(cared_for)

    def _held(self, process: str) -> list[str]:
        with contextlib.suppress(OSError):
            return os.listdir(self._spool / "tmp" / f"{process}.held")
        return []

    def _bury(self, process: str, pid: int) -> bool:
        """Note what a pilot that ended has left; let its leases run out, once: others may have some of it again.

        Tell whether it has ended.
        """
        left = self._held(process)
        if holders := machine.lock_holders(str(self._spool / "tmp" / f"{process}.lock")):
            return pid not in holders  # if so, what is held is the next one's of that name
        for name in left:
            self.holders[name].add(pid)
        if self._hasten:
            self._let_run_out(
                self._spool / "tmp" / f"{process}.host", *(self._spool / "running" / name for name in left)
            )
        return True

    def _look_for_silent_ones(self, cared_for: set[str]) -> None:
        """Let run out what has not been renewed for many looks: a claim that its pilot had no time to note.

        Claims that a pilot is known to care for are spared: a pilot may stand still while this process does not.
        """
        before, self._unchanged = self._unchanged, {}
        for path in (*(self._spool / "running").iterdir(), *(self._spool / "tmp").glob(f"executor-{POOL}-*.host")):
            with contextlib.suppress(FileNotFoundError):
                mtime = path.stat().st_mtime_ns
                known, looks = before.get(path, (0, 0))
                self._unchanged[path] = (mtime, looks + 1 if known == mtime else 0)
                if looks >= SILENT and path.name not in cared_for:
                    self._let_run_out(path)

    def _let_run_out(self, *paths: Path) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, OLD)


def _pilot(process: str, pid: int) -> Pilot | None:
    """Return the pilot that has this number, None where it has just ended."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
        told = dict(word.partition("=")[::2] for word in words)
        if "SLURM_JOB_ID" in told:
            return Pilot(process, pid, told["SLURM_JOB_ID"], told["SLURMD_NODENAME"])
    return None
