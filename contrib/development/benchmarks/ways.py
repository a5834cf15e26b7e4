"""What all measured ways have in common: programs that are asked for at once, and programs that arrive one by one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from benchmarks.programs import Program

WORKERS = 2  # the slots of a spool, and the number of a peer's runs at once


class MeasuringError(Exception):
    """Something to be measured does not do what it should. The text says what it did instead."""


class Way(Protocol):
    """A way to run programs. All times are seconds. Runs are checked by what they print, else MeasuringError."""

    name: str
    programs: tuple[Program, ...]

    def burst(self, programs: Sequence[Program]) -> float:
        """Ask for runs at once, and return how long all of them take."""

    def paced(self, program: Program, gaps: list[float]) -> list[float]:
        """Ask for a run after each of ``gaps``, also while earlier runs go on; return how long each took."""

    def rest(self) -> None:
        """Wait until the work is done that the runs left behind, so that the next run does not pay for it."""


class Peer:
    """A way that is one call: ``run`` returns what the program printed.

    ``about`` says what it runs and by which limits, where these differ from the spools'.
    ``url`` says where it listens, if it does.
    """

    about = ""
    url = ""

    def __init__(self, name: str, programs: tuple[Program, ...]) -> None:
        self.name, self.programs = name, programs
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix=name)

    def run(self, program: Program) -> str:
        """Run ``program`` once."""
        raise NotImplementedError

    def _checked(self, program: Program, asked: float) -> float:
        printed = self.run(program)
        taken = time.monotonic() - asked
        if printed != program.output:
            raise MeasuringError(f"{self.name}{program.suffix}: printed {printed!r}, not {program.output!r}")
        return taken

    def burst(self, programs: Sequence[Program]) -> float:
        """See :class:`Way`."""
        began = time.monotonic()
        return max(self._workers.map(lambda program: self._checked(program, began), programs))

    def paced(self, program: Program, gaps: list[float]) -> list[float]:
        """See :class:`Way`."""
        asked = [self._workers.submit(self._checked, program, moment) for moment in moments(gaps)]
        return [future.result() for future in asked]

    def rest(self) -> None:
        """Do nothing: no work is left when a call has returned."""

    def close(self) -> None:
        """End the threads."""
        self._workers.shutdown()


def moments(gaps: Iterable[float]) -> Iterator[float]:
    """Yield the time (monotonic) after each of ``gaps``, on a schedule that the caller's own work does not delay."""
    due = time.monotonic()
    for gap in gaps:
        due += gap
        time.sleep(max(0.0, due - time.monotonic()))  # the schedule is one of time: there is no event to wait for
        yield time.monotonic()


def say(text: str) -> None:
    """Tell how far we are."""
    print(f"==> {text}", file=sys.stderr, flush=True)


def environment(path: str) -> dict[str, str]:
    """Return the few variables that a program needs."""
    return {"PATH": path, "HOME": "/job", "LANG": "C.UTF-8", "TMPDIR": "/tmp"}


def megabytes(pid: int) -> float:
    """Return the memory of a process in MB, its part of shared memory included (PSS)."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        kilobytes = next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return round(kilobytes / 1024, 1)
