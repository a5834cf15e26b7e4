"""Latency and throughput of every way and program, in turns."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.programs import TRIVIAL, Program
from benchmarks.ways import WORKERS, Way

LOAD = 0.3  # part of its capacity at which the runs of a way arrive while latency is measured
TRIVIAL_WEIGHT = 3  # the trivial program gets so many times the time of the others, and the samples
LATENCY_PART = 0.6  # of the time of a cell


@dataclass(frozen=True)
class Effort:
    """How much is measured: samples of the latency of the trivial program, most seconds in all, turns.

    ``burst``: how many runs are asked for at once, at the least, while there is time.
    """

    samples: int
    seconds: float
    rounds: int
    burst: int


@dataclass
class Cell:
    """One way with one program, and what was measured so far."""

    way: Way
    program: Program
    latencies: list[float] = field(default_factory=list)  # seconds
    runs: int = 0
    seconds: float = 0.0  # until the last answers of these runs
    seconds_until_rest: float = 0.0  # and until what they left to be done was done
    turns: int = 0  # in which these runs were asked for
    _warming_up: bool = True

    @property
    def name(self) -> str:
        """Return the name of the result."""
        return self.way.name + self.program.suffix

    @property
    def weight(self) -> int:
        """Return the share in the time."""
        return TRIVIAL_WEIGHT if self.program is TRIVIAL else 1

    @property
    def jobs_per_second(self) -> float:
        """Return what is answered in a second."""
        return self.runs / self.seconds

    @property
    def capacity(self) -> float:
        """Return what can go on for ever, in runs per second."""
        return self.runs / self.seconds_until_rest

    def warm_up(self) -> None:
        """Run one for each worker, for full caches and a first idea of the capacity."""
        self.burst(WORKERS)

    def turn(self, seconds: float, samples: int, least: int) -> None:
        """Measure for about ``seconds``: at most ``samples`` latencies, and at least so many runs at once.

        Where no time is left it is one latency, and the warm-up counts.
        """
        if seconds > 0:
            count = between(least, self.capacity * seconds * (1 - LATENCY_PART), max(least, 5 * samples))
            if self._warming_up:
                self._warming_up, self.runs, self.seconds, self.seconds_until_rest, self.turns = False, 0, 0.0, 0.0, 0
            self.burst(count)
        rate = LOAD * self.capacity
        count = between(1, rate * seconds * LATENCY_PART, samples)
        gaps = [random.expovariate(rate) for _ in range(count - 1)]
        self.latencies += self.way.paced(self.program, [0.0, *gaps])
        self.way.rest()

    def burst(self, count: int) -> None:
        """Measure throughput."""
        began = time.monotonic()
        taken = self.way.burst([self.program] * count)
        self.way.rest()
        self.seconds_until_rest += time.monotonic() - began
        self.seconds += taken
        self.runs += count
        self.turns += 1

    def percentile(self, part: int) -> float:
        """Return the smallest latency, in milliseconds, that ``part`` percent of them do not exceed."""
        ordered = sorted(self.latencies)
        return round(ordered[max(0, -(-len(ordered) * part // 100) - 1)] * 1000, 2)


def between(least: int, wanted: float, most: int) -> int:
    """Return ``wanted`` within bounds."""
    return max(least, min(round(wanted), most))


def measure(ways: Sequence[Way], effort: Effort) -> list[Cell]:
    """Measure all in turns, fast ones first: each gets its share of the time left, so slow ones what others spare."""
    programs = dict.fromkeys(program for way in ways for program in way.programs)
    cells = [Cell(way, program) for program in programs for way in ways if program in way.programs]
    deadline = time.monotonic() + effort.seconds
    for cell in cells:
        say(f"warming up {cell.name}")
        cell.warm_up()
    cells.sort(key=lambda cell: cell.capacity, reverse=True)
    turns = [cell for _ in range(effort.rounds) for cell in cells]
    weight = sum(cell.weight for cell in turns)
    for number, cell in enumerate(turns):
        left = deadline - time.monotonic()
        if left < 0 and number >= len(cells):
            break
        say(f"turn {number + 1} of {len(turns)}: {cell.name}")
        samples = -(-effort.samples * cell.weight // TRIVIAL_WEIGHT // effort.rounds)
        cell.turn(max(0.0, left) * cell.weight / weight, samples, effort.burst)
        weight -= cell.weight
    return cells


def say(text: str) -> None:
    """Tell how far we are."""
    print(f"==> {text}", file=sys.stderr, flush=True)
