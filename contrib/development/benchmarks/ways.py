"""What all that is measured has in common: programs dropped at once, and programs that arrive one by one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from benchmarks.programs import Program

WORKERS = 2  # slots of a spool, and how many of a peer's runs go on at once


class MeasuringError(Exception):
    """Something to be measured does not do what it should; the text says what came instead."""


class Way(Protocol):
    """A way to run programs. Seconds everywhere; both methods check what was printed, and raise MeasuringError."""

    name: str
    programs: tuple[Program, ...]

    def burst(self, programs: Sequence[Program]) -> float:
        """Return how long runs take that are asked for at once."""

    def paced(self, program: Program, gaps: list[float]) -> list[float]:
        """Ask for a run after each of ``gaps``, also when earlier ones go on; return how long each took."""

    def rest(self) -> None:
        """Return when what the runs left to be done is done, so that it is not at the next one's cost."""


class Peer:
    """A way that is one call: ``run`` returns what the program printed.

    ``about`` tells what it runs and by which limits, where these are not the spools';
    ``url`` where it listens, if it does.
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
        """Nothing is left when a call has returned."""

    def close(self) -> None:
        """End the threads."""
        self._workers.shutdown()


def moments(gaps: Iterable[float]) -> Iterator[float]:
    """Yield the monotonic clock after each of ``gaps``: on a schedule, which what is done meanwhile does not delay."""
    due = time.monotonic()
    for gap in gaps:
        due += gap
        time.sleep(max(0.0, due - time.monotonic()))  # the arrivals' own schedule: there is nothing to wait for
        yield time.monotonic()


def say(text: str) -> None:
    """Tell how far we are."""
    print(f"==> {text}", file=sys.stderr, flush=True)


def environment(path: str) -> dict[str, str]:
    """Return the few variables that a program needs."""
    return {"PATH": path, "HOME": "/job", "LANG": "C.UTF-8", "TMPDIR": "/tmp"}


def megabytes(pid: int) -> float:
    """Return the memory of a process in MB, a part of what it shares counted in (PSS)."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        kilobytes = next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return round(kilobytes / 1024, 1)
