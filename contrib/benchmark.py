"""Latency and throughput of a served spool, beside what `docker run` takes for the same program.

Everything is measured in turns, so that what else the machine does disturbs all alike. The clock starts at the rename
into ``incoming/`` and ends when the response can be opened.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
from rich.console import Console
from rich.table import Table

SCRIPT = "echo hi\n"
FILES = [{"name": "run.sh", "content": SCRIPT}]
SHELL = "{ pkgs ? import <nixpkgs> {} }: pkgs.mkShell { packages = [ pkgs.python3 pkgs.jq ]; }"
REQUEST = json.dumps({"files": FILES}).encode()
PATIENCE = 300.0  # seconds for one response
ENVIRONMENTS = 5
# A second or two of one CPU in Nix's sandbox; the name makes it a build that nobody has made yet.
NEW_SHELL = """{ pkgs ? import <nixpkgs> {} }: pkgs.mkShell {
  packages = [ (pkgs.runCommand "%s" {} "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done; mkdir $out") ];
}"""


def request_with(shell: str) -> bytes:
    """Return a request with a cutor.nix."""
    return json.dumps({"files": [*FILES, {"name": "cutor.nix", "content": shell}]}).encode()


class Bench:
    """One served spool and the engine behind it."""

    def __init__(self, spool: Path) -> None:
        self.spool = spool
        self.runtime = json.loads((spool / "builds" / "runtime.json").read_bytes())
        self.api = docker.DockerClient(base_url=os.environ["DOCKER_HOST"], version="auto")
        self.serial = 0
        # This builds the dependencies, and makes the image if nobody has yet.
        self.through_the_spool()
        self.with_a_shell_of_its_own()
        self.image = next(tag for image in self.api.images.list("spoold-sandbox") for tag in image.tags)

    def submit(self, request: bytes = REQUEST) -> str:
        """Drop one submission in one step; return its id."""
        self.serial += 1
        id_ = f"bench-{self.serial}"
        private = self.spool / "incoming" / f".{id_}.tmp"
        private.write_bytes(request)
        private.rename(self.spool / "incoming" / f"{id_}.json")
        return id_

    def wait(self, id_: str) -> None:
        """Return when the response is there; fails when it is not the right one."""
        path = self.spool / "done" / f"{id_}.response.json"
        deadline = time.monotonic() + PATIENCE
        while not path.exists():
            if time.monotonic() > deadline:
                sys.exit(f"{id_}: no response within {PATIENCE:g} s")
            time.sleep(0.0005)
        response = json.loads(path.read_bytes())
        if (response["status"], response["run"]["stdout"]) != ("COMPLETED", "hi\n"):
            sys.exit(f"{id_}: not what was expected: {response}")

    def through_the_spool(self) -> None:
        """Take one submission from the drop box to its response."""
        self.wait(self.submit())

    def with_a_shell_of_its_own(self) -> None:
        """Take one submission with a cutor.nix, which is built already, to its response."""
        self.wait(self.submit(request_with(SHELL)))

    def docker_run(self) -> None:
        """Run the same with the docker command, in the same image with the same store."""
        options = ["--rm", "--network", "none", "--entrypoint", "/bin/sh"]
        command = ["docker", "run", *options, "-v", f"{self.runtime['store']}:/nix/store:ro", self.image, "-c", SCRIPT]
        self._check(subprocess.run(command, capture_output=True, check=True).stdout)

    def docker_sdk(self) -> None:
        """Run the same with the Docker SDK."""
        output = self.api.containers.run(
            self.image,
            ["-c", SCRIPT],
            entrypoint="/bin/sh",
            network_mode="none",
            remove=True,
            volumes={self.runtime["store"]: {"bind": "/nix/store", "mode": "ro"}},
        )
        self._check(output)

    def _check(self, output: bytes) -> None:
        if output != b"hi\n":
            sys.exit(f"docker run printed {output!r}")

    def environments(self, count: int) -> float:
        """Return the seconds in which ``count`` submissions over five new environments, at once, are all answered."""
        shells = [NEW_SHELL % f"new-{time.time_ns()}-{number}" for number in range(ENVIRONMENTS)]
        requests = [
            json.dumps({"files": [*FILES, {"name": "cutor.nix", "content": shell}]}).encode() for shell in shells
        ]
        builds = self.spool / "builds" / "done"
        before, began = len(os.listdir(builds)), time.monotonic()
        for id_ in [self.submit(requests[number % ENVIRONMENTS]) for number in range(count)]:
            self.wait(id_)
        seconds, made = time.monotonic() - began, (len(os.listdir(builds)) - before) // 2
        if made != ENVIRONMENTS:
            sys.exit(f"{made} builds were made of {ENVIRONMENTS} environments")
        return seconds

    def burst(self, count: int) -> float:
        """Return the seconds in which ``count`` submissions that are dropped at once are all answered."""
        began = time.monotonic()
        for id_ in [self.submit() for _ in range(count)]:
            self.wait(id_)
        return time.monotonic() - began


def by_nix_shell(spool: Path | None) -> dict[str, Callable[[], None]]:
    """Return the way through a spool whose jobs start nix-shell themselves."""
    return {"the same, entered by nix-shell itself": Bench(spool).with_a_shell_of_its_own} if spool else {}


def latencies(ways: dict[str, Callable[[], None]], runs: int) -> dict[str, dict[str, float]]:
    """Return p50, p95 and p99 in milliseconds of each way, taken in turns after one uncounted turn."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(runs + 1):
        for name, way in ways.items():
            began = time.monotonic()
            way()
            if turn:
                taken[name].append((time.monotonic() - began) * 1000)
    return {name: {f"p{part}": percentile(values, part) for part in (50, 95, 99)} for name, values in taken.items()}


def percentile(values: list[float], part: int) -> float:
    """Return the smallest value that ``part`` percent of ``values`` do not exceed."""
    return round(sorted(values)[min(len(values) - 1, len(values) * part // 100)], 1)


def main() -> None:
    """Measure, print a table, write JSON where asked."""
    parser = argparse.ArgumentParser(prog="contrib/bench")
    parser.add_argument("spool", type=Path)
    parser.add_argument("--nix-shell", type=Path, help="another spool, whose jobs start nix-shell themselves")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--burst", type=int, default=50)
    parser.add_argument("--environments", type=int, default=3, metavar="ROUNDS")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    bench = Bench(options.spool)
    ways = {
        "spoold, from the drop box to the response": bench.through_the_spool,
        "the same, with a shell of its own": bench.with_a_shell_of_its_own,
        **by_nix_shell(options.nix_shell),
        "docker run --rm": bench.docker_run,
        "Docker SDK": bench.docker_sdk,
    }
    results: dict[str, Any] = {"latency_ms": latencies(ways, options.runs)}
    seconds = bench.burst(options.burst)
    results["throughput"] = {"submissions": options.burst, "seconds": round(seconds, 2)}
    rounds = [
        (bench.environments(ENVIRONMENTS), bench.environments(options.burst)) for _ in range(options.environments)
    ]
    if rounds:
        alone, all_at_once = (statistics.median(side) for side in zip(*rounds, strict=True))
        results[f"environments-{options.burst}/{ENVIRONMENTS}"] = {
            "alone_seconds": round(alone, 2),
            "seconds": round(all_at_once, 2),
            "ratio": round(all_at_once / alone, 2),
        }
    table = Table("latency of `echo hi`, ms", "p50", "p95", "p99", box=None, pad_edge=False)
    for name, parts in results["latency_ms"].items():
        table.add_row(name, *(f"{parts[part]:.1f}" for part in ("p50", "p95", "p99")))
    console = Console(highlight=False)
    console.print(table)
    console.print(f"{options.burst} dropped at once: {seconds:.1f} s, {options.burst / seconds:.1f} a second")
    if rounds:
        console.print(
            f"{options.burst} over {ENVIRONMENTS} new environments at once: {all_at_once:.1f} s, "
            f"{all_at_once / alone:.2f} times the {alone:.1f} s of one for each"
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
