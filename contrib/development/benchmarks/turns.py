"""Latency and throughput of every way and program, in turns."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.deadline import Deadline
from benchmarks.programs import TRIVIAL, Program
from benchmarks.ways import WORKERS, Way, say

LOAD = 0.3  # the part of a way's capacity at which its runs arrive while latency is measured
TRIVIAL_WEIGHT = 3  # the trivial program gets so many times the time and the samples of the others
OWN_PART, COMMON_PART = 0.35, 0.3  # parts of a cell's time: for latency at its own rate, and at the rate of all


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    ``samples`` are of the latency of the trivial program. ``seconds`` bounds the time in all. ``rounds`` are turns of
    each cell. ``burst`` is how many runs at least are asked for at once, while there is time. ``rate`` is how many runs
    arrive in a second where that is the same for all. A cell that is not warmed up after ``warming`` seconds is left
    out.
    """

    samples: int
    seconds: float
    rounds: int
    burst: int
    rate: float
    warming: float = math.inf


@dataclass
class Cell:
    """One way with one program, and what was measured so far."""

    way: Way
    program: Program
    latencies: list[float] = field(default_factory=list)  # seconds, at a part of its own capacity
    common: list[float] = field(default_factory=list)  # seconds, at the rate of all
    runs: int = 0
    seconds: float = 0.0  # until the last answers to these runs
    seconds_until_rest: float = 0.0  # until the work was done that these runs left behind
    turns: int = 0  # turns in which these runs were asked for
    _warming_up: bool = True

    @property
    def name(self) -> str:
        """Return the name of the result."""
        return self.way.name + self.program.suffix

    @property
    def weight(self) -> int:
        """Return the share of the time."""
        return TRIVIAL_WEIGHT if self.program is TRIVIAL else 1

    @property
    def jobs_per_second(self) -> float:
        """Return how many runs are answered in a second."""
        return self.runs / self.seconds

    @property
    def capacity(self) -> float:
        """Return how many runs per second can go on for ever."""
        return self.runs / self.seconds_until_rest

    def warm_up(self) -> None:
        """Run one program for each worker, to fill caches and to estimate the capacity, and then one alone."""
        self._burst(WORKERS)
        self.latencies = self.way.paced(self.program, [0.0])
        self.way.rest()

    def turn(self, seconds: float, effort: Effort) -> None:
        """Measure for about ``seconds``, more than 0. From now on the figures of the warm-up do not count."""
        samples = -(-effort.samples * self.weight // TRIVIAL_WEIGHT // effort.rounds)
        wanted = self.capacity * seconds * (1 - OWN_PART - COMMON_PART)
        count = between(effort.burst, wanted, max(effort.burst, 5 * samples))
        if self._warming_up:
            self._warming_up, self.runs, self.seconds, self.seconds_until_rest, self.turns = False, 0, 0.0, 0.0, 0
            self.latencies = []
        self._burst(count)
        self.latencies += self._arriving(LOAD * self.capacity, seconds * OWN_PART, samples)
        self.common += self._arriving(effort.rate, seconds * COMMON_PART, samples)

    def _burst(self, count: int) -> None:
        """Measure throughput."""
        began = time.monotonic()
        taken = self.way.burst([self.program] * count)
        self.way.rest()
        self.seconds_until_rest += time.monotonic() - began
        self.seconds += taken
        self.runs += count
        self.turns += 1

    def _arriving(self, rate: float, seconds: float, most: int) -> list[float]:
        """Return the latencies of runs that arrive at random for some seconds, the first at once."""
        gaps = [0.0]
        while len(gaps) < most and sum(gaps) + (gap := random.expovariate(rate)) <= seconds:
            gaps.append(gap)
        taken = self.way.paced(self.program, gaps)
        self.way.rest()
        return taken


def percentile(values: Sequence[float], part: int) -> float | None:
    """Return, in ms, the smallest of these seconds that ``part`` percent do not exceed; None where there are none."""
    ordered = sorted(values)
    return round(ordered[max(0, -(-len(ordered) * part // 100) - 1)] * 1000, 2) if ordered else None


def between(least: int, wanted: float, most: int) -> int:
    """Return ``wanted`` within bounds."""
    return max(least, min(round(wanted), most))


def measure(ways: Sequence[Way], effort: Effort, deadline: Deadline) -> list[Cell]:
    """Measure all cells in turns, fast ones first. Each gets its share of the time left, so slow ones get spare time.

    A cell is left out where there is not even time for its warm-up.
    """
    began = time.monotonic()
    cells = warmed_up(ways, began + effort.warming, deadline)
    cells.sort(key=lambda cell: cell.capacity, reverse=True)
    turns = [cell for _ in range(effort.rounds) for cell in cells]
    weight = sum(cell.weight for cell in turns)
    for number, cell in enumerate(turns):
        left = began + effort.seconds - time.monotonic()
        if left <= 0:
            say(f"no time is left for {len(turns) - number} of {len(turns)} turns")
            break
        say(f"turn {number + 1} of {len(turns)}: {cell.name}")
        cell.turn(left * cell.weight / weight, effort)
        weight -= cell.weight
    return cells


def warmed_up(ways: Sequence[Way], end: float, deadline: Deadline) -> list[Cell]:
    """Return the cells whose warm-up began before ``end`` (monotonic), those of the trivial program first."""
    cells = []
    for program in dict.fromkeys(program for way in ways for program in way.programs):
        for way in ways:
            if program in way.programs:
                cell = Cell(way, program)
                if time.monotonic() >= end:
                    deadline.leave_out(cell.name, "no time was left to warm it up")
                    continue
                say(f"warming up {cell.name}")
                cell.warm_up()
                cells.append(cell)
    return cells
