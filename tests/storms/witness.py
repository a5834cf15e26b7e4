"""The witness: sees which pilots there are, and which of them holds which attempt of a submission."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import defaultdict
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
        """Return the process that Slurm started it by."""
        return int(Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[1])


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
        found = []
        for lock in sorted((self._spool / "tmp").glob(f"executor-{POOL}-*.lock")):
            for pid in machine.lock_holders(str(lock)) or []:
                with contextlib.suppress(OSError):
                    words = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
                    told = dict(word.partition("=")[::2] for word in words)
                    if "SLURM_JOB_ID" in told:  # else its process is just ending
                        node = told["SLURMD_NODENAME"]
                        found.append(Pilot(lock.name.removesuffix(".lock"), pid, told["SLURM_JOB_ID"], node))
        return found

    def doom(self, *pilots: Pilot) -> None:
        """Note pilots that are killed, or may be, without a word."""
        self.doomed.update(pilot.pid for pilot in pilots)

    def _look(self) -> None:
        alive: dict[str, int] = {}
        for lock in (self._spool / "tmp").glob(f"executor-{POOL}-*.lock"):
            process = lock.name.removesuffix(".lock")
            for pid in machine.lock_holders(str(lock)) or []:
                alive[process] = pid
                for name in self._held(process):
                    self.holders[name].add(pid)
        for process, pid in self._alive.items():
            if process not in alive:
                self._bury(process, pid)
        self._alive = alive
        if self._hasten:
            self._look_for_silent_ones()

    def _held(self, process: str) -> list[str]:
        with contextlib.suppress(OSError):
            return os.listdir(self._spool / "tmp" / f"{process}.held")
        return []

    def _bury(self, process: str, pid: int) -> None:
        """Note what a pilot that ended has left; let its leases run out, once: others may have some of it again."""
        left = self._held(process)
        for name in left:
            self.holders[name].add(pid)
        if self._hasten:
            self._let_run_out(
                self._spool / "tmp" / f"{process}.host", *(self._spool / "running" / name for name in left)
            )

    def _look_for_silent_ones(self) -> None:
        """Let run out what has not been renewed for many looks: a claim that its pilot had no time to note."""
        before, self._unchanged = self._unchanged, {}
        for path in (*(self._spool / "running").iterdir(), *(self._spool / "tmp").glob(f"executor-{POOL}-*.host")):
            with contextlib.suppress(FileNotFoundError):
                mtime = path.stat().st_mtime_ns
                known, looks = before.get(path, (0, 0))
                self._unchanged[path] = (mtime, looks + 1 if known == mtime else 0)
                if looks == SILENT:
                    self._let_run_out(path)

    def _let_run_out(self, *paths: Path) -> None:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, OLD)
