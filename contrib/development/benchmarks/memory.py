"""Tries the verdicts about memory. contrib/development/memory starts this, and its --help says what is tried.

The program asks the kernel about its own pages to find out what its interpreter holds, and takes the rest up to the
target. So the truth is known to within some pages. The sleeps belong to what is tried: for how long all of the memory
is held. tests/sandbox/test_memory_exact.py runs the same program.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from spoold.config import DockerSettings, ExecutorSettings, NixSettings, SandboxSettings, Settings, SpoolSettings
from spoold.engines.docker.sandbox import DockerSandbox
from spoold.model.errors import SpooldError
from spoold.model.ids import build_id
from spoold.model.job import BuildResult, Job, JobFile, Runtime
from spoold.model.limits import COMPILE_MAXIMUM, MIB, RUN_MAXIMUM
from spoold.model.response import Outcome
from spoold.nix.build import NixBuilder
from spoold.sandbox import Sandbox

PROGRAM = r"""
import mmap, os, sys, time

kind, target, hold = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
chunk = bytes([1]) * 65536
with open("/proc/self/smaps_rollup", "rb", buffering=0) as file:
    own = next(int(line.split()[1]) << 10 for line in file.read().splitlines() if line.startswith(b"Anonymous:"))
rest = target - own - 65536  # for what it takes from here on
if kind in ("private", "forked", "shared"):
    private = mmap.MAP_SHARED if kind == "shared" else mmap.MAP_PRIVATE
    held = mmap.mmap(-1, rest, private | mmap.MAP_ANONYMOUS)
    for at in range(0, rest, len(chunk)): held[at : at + len(chunk)] = chunk[: rest - at]
    if kind == "forked":
        for _ in range(4):
            if not os.fork():
                for at in range(0, rest, 4096): held[at]
                time.sleep(hold)  # the row is of memory that all of them hold so long
                os._exit(0)
        for _ in range(4): os.wait()
else:
    with open(f"{kind}/held", "wb", buffering=0) as file:
        for at in range(0, rest, len(chunk)): file.write(chunk[: rest - at])
time.sleep(hold)  # the row is of memory that is held so long
if kind.startswith("/"): os.unlink(f"{kind}/held")
"""
Mode = Literal["single-use", "recycled"]
KINDS = ("private", "shared", "forked", "/job", "/tmp", "/dev/shm")
MODES: tuple[Mode, ...] = ("single-use", "recycled")
LIMITS, SMALL = (16, 64, 128, 512), (16, 64)  # MiB
HOLDS = (0.0, 0.06)  # seconds
OVER = 2 * MIB
EXACT = MIB
SHELL = "{ pkgs ? import <nixpkgs> {} }: pkgs.mkShell { packages = [ pkgs.python3 ]; }\n"


@dataclass(frozen=True)
class Row:
    """One case that is tried again and again: ``limit`` is bytes, ``hold`` seconds."""

    kind: str
    limit: int
    hold: float

    def job(self, shell: str, closure: list[str]) -> Job:
        """Return a job that holds as much as it may in its first phase, and more in its second."""
        scripts = {
            name: f"exec python3 hold.py {self.kind} {target} {self.hold}\n"
            for name, target in (("compile.sh", self.limit), ("run.sh", self.limit + OVER))
        }
        files = {**scripts, "hold.py": PROGRAM}
        return Job(
            submission_id="memory",
            attempt=1,
            files=[JobFile(name, content.encode(), 0o644) for name, content in files.items()],
            stdin=b"",
            args=[],
            env={},
            compile=replace(COMPILE_MAXIMUM, memory=self.limit, stdout=65536, stderr=65536, processes=128),
            run=replace(RUN_MAXIMUM, memory=self.limit, stdout=65536, stderr=65536, processes=128),
            shell=shell,
            nixpkgs="/nix/store/the-pin",
            closure=closure,
        )


@dataclass
class Seen:
    """The outcome of a row's jobs: wrong verdicts, and by how many bytes the figures of memory are off."""

    wrong: list[str] = field(default_factory=list)
    off: list[int] = field(default_factory=list)

    def try_once(self, sandbox: Sandbox, row: Row, job: Job) -> None:
        """Run a job of ``row``."""
        result = sandbox.run(job, lambda *_: None, threading.Event())
        for phase, target, right in (
            (result.compile, row.limit, Outcome.OK),
            (result.run, row.limit + OVER, Outcome.MEMORY_LIMIT),
        ):
            if phase.outcome is Outcome.SKIPPED:
                continue
            if phase.outcome is not right:
                self.wrong.append(f"{phase.outcome} at {target} bytes, not {right}: {phase.memory}, {phase.stderr!r}")
            # A program that is ended on the way holds less.
            if isinstance(phase.memory, int) and (right is Outcome.OK or phase.signal == ""):
                self.off.append(phase.memory - target)

    @property
    def good(self) -> bool:
        """Tell whether all verdicts are right, and all figures exact enough."""
        return not self.wrong and all(abs(off) <= EXACT for off in self.off)


def rows(kinds: list[str]) -> Iterator[Row]:
    """Yield the rows to try."""
    for kind in kinds:
        for limit in SMALL if kind.startswith("/") else LIMITS:
            for hold in HOLDS:
                yield Row(kind, limit * MIB, hold)


def main() -> None:
    """Try, print, and end with 1 where something was wrong."""
    given = options()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        good = run(given)
    except (SpooldError, OSError) as error:
        sys.exit(f"contrib/development/memory: {error}")
    sys.exit(0 if good else 1)


def options() -> argparse.Namespace:
    """Return the options; exit with 2 where they are wrong, and with 0 where they were only to be checked."""
    parser = argparse.ArgumentParser(prog="contrib/development/memory", add_help=False, allow_abbrev=False)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--mode", choices=MODES)
    parser.add_argument("--kind", choices=KINDS, action="append")
    # contrib/development/memory adds the following.
    parser.add_argument("--check", action="store_true")
    for name in ("docker", "nixpkgs", "state"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    if given.check:
        sys.exit(0)
    return given


def run(given: argparse.Namespace) -> bool:
    """Try all rows, print each, and tell whether all are good."""
    settings = Settings(
        docker=DockerSettings(host=given.docker),
        spool=SpoolSettings(path=str(given.work)),
        executor=ExecutorSettings(name="memory"),
        nix=NixSettings(state=given.state, system=f"{os.uname().machine}-linux"),
        nixpkgs={"default": given.nixpkgs},
    )
    builder = NixBuilder(settings)
    runtime = builder.prepare()
    id_ = build_id(SHELL, runtime.nixpkgs["default"], runtime.system, runtime.nix)
    built = builder.build(id_, SHELL, "default", threading.Event())
    if not built.shell:
        sys.exit(f"contrib/development/memory: python3 cannot be built: {built.phase.stderr}")
    good = True
    chosen: tuple[Mode, ...] = (given.mode,) if given.mode else MODES
    for mode in chosen:
        own = replace(settings, sandbox=SandboxSettings(mode=mode, waiting=2))
        for row, seen in tried(own, runtime, list(rows(given.kind or ["private"])), given.times, built):
            good &= seen.good
            off = [round(each / MIB, 2) for each in (min(seen.off), max(seen.off))] if seen.off else []
            print(
                f"{mode:<11}{row.kind:<9}{row.limit >> 20:>4} MiB {row.hold * 1000:>3.0f} ms: "
                f"{len(seen.wrong)} wrong of {given.times}; off by {off} MiB",
                *seen.wrong[:3],
                sep="\n    ",
                flush=True,
            )
    return good


def tried(
    settings: Settings, runtime: Runtime, wanted: list[Row], times: int, built: BuildResult
) -> Iterator[tuple[Row, Seen]]:
    """Yield each row with its outcome."""
    sandbox = DockerSandbox(settings, runtime)
    try:
        sandbox.prepare()
        for row in wanted:
            seen = Seen()
            for _ in range(times):
                seen.try_once(sandbox, row, row.job(built.shell, built.closure))
            yield row, seen
    finally:
        sandbox.close()


if __name__ == "__main__":
    main()
