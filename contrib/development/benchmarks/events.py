"""What else happens to a spool: a daemon is killed, very many submissions wait, many environments are new."""

from __future__ import annotations

import os
import signal
import statistics
import time

from benchmarks.daemons import ROLES
from benchmarks.programs import PYTHON, TRIVIAL, Program
from benchmarks.served import RESPONSE_TIMEOUT, Served
from benchmarks.ways import MeasuringError, say

# A second or two of one CPU in Nix's sandbox; the name makes it a build that nobody has made yet.
NEW_SHELL = """{ pkgs ? import <nixpkgs> {} }: pkgs.mkShell {
  packages = [ (pkgs.runCommand "%s" {} "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done; mkdir $out") ];
}"""


def recovery(served: Served) -> dict[str, float]:
    """Return, for each daemon, the seconds from its start after a kill -9 to the answer to a submission dropped then.

    The submission for the builder needs an environment that has to be built.
    """
    taken = {}
    for role in ROLES:
        say(f"kill -9 of {role}")
        served.daemons.end([role], signal.SIGKILL)
        began = time.monotonic()
        served.daemons.launch(role)
        id_ = served.drop(_unbuilt() if role == "builder" else TRIVIAL)
        taken[role] = round(served.seen(id_) - began, 3)
        served.check(TRIVIAL, id_)
    return taken


def _unbuilt() -> Program:
    return Program("", TRIVIAL.output, TRIVIAL.files | {"cutor.nix": f"{PYTHON.expression} # {time.time()}"})


def scaling(served: Served, sizes: list[int], seconds: float) -> dict[str, dict[str, float]]:
    """Return an executor's seconds to its first answer, rate and memory, by how many submissions wait at its start.

    For each answer another submission is dropped, so that the same number waits all the time.
    """
    results = {}
    for size in sizes:
        say(f"{size} waiting")
        served.daemons.end(["executor"])
        served.fill(size)
        served.arrivals.take(0)
        began = time.monotonic()
        served.daemons.launch("executor")
        if not served.arrivals.take(RESPONSE_TIMEOUT):
            raise MeasuringError(f"no response in {RESPONSE_TIMEOUT:g} s with {size} waiting{served.daemons.said()}")
        first, answered = time.monotonic(), 0
        while time.monotonic() < first + seconds:
            arrived = len(served.arrivals.take(1.0))
            answered += arrived
            for _ in range(arrived):
                served.drop(TRIVIAL)
        spent = time.monotonic() - first
        results[str(size)] = {
            "first_s": round(first - began, 2),
            "jobs_per_s": round(answered / spent, 1),
            **{f"{role}_mb": megabytes for role, megabytes in served.daemons.memory().items()},
        }
        served.daemons.end(["executor"])
        served.empty()
    return results


def environments(served: Served, submissions: int, environments: int, rounds: int) -> dict[str, float]:
    """Return the median seconds for submissions that share new environments, and for one submission for each."""
    pairs = []
    for _ in range(rounds):
        say(f"{submissions} submissions over {environments} new environments")
        alone = _over_new_environments(served, environments, environments)
        pairs.append((alone, _over_new_environments(served, submissions, environments)))
    alone, seconds = (statistics.median(side) for side in zip(*pairs, strict=True))
    return {
        "submissions": submissions,
        "environments": environments,
        "alone_s": round(alone, 2),
        "all_s": round(seconds, 2),
        "ratio": round(seconds / alone, 2),
    }


def _over_new_environments(served: Served, count: int, environments: int) -> float:
    shells = [NEW_SHELL % f"new-{time.time_ns()}-{number}" for number in range(environments)]
    programs = [Program("", TRIVIAL.output, TRIVIAL.files | {"cutor.nix": shell}) for shell in shells]
    builds = served.spool / "builds" / "done"
    before = len(os.listdir(builds))
    served.rest()
    taken = served.burst([programs[number % environments] for number in range(count)])
    made = (len(os.listdir(builds)) - before) // 2
    if made != environments:
        raise MeasuringError(f"{environments} environments needed {environments} builds, but {made} were made")
    return taken
