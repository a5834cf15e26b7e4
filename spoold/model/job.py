"""What the executor hands to a sandbox, and what the builder hands to the executor.

These objects cross between layers that do not import each other, so they live here. Daemons that can do more
than the builder can read the builder's objects. So each field takes only what it is for, and a path is one in the Nix
store.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import msgspec

from spoold.model.formats import Stored
from spoold.model.limits import PhaseLimits
from spoold.model.outputs import Output, Returned, Wanted
from spoold.model.paths import Pin, StorePath, StorePathOrNone, System
from spoold.model.response import Package, Phase
from spoold.model.setting import setting


class JobFile(msgspec.Struct, frozen=True):
    """A file of the job: ``name`` is a checked relative path, ``content`` its bytes, ``mode`` 0o644 or 0o755."""

    name: str
    content: bytes
    mode: int


class JobCase(msgspec.Struct, frozen=True, kw_only=True):
    """One case of a job: what its program reads, gets as arguments, and may use.

    ``env`` is laid over the job's; what a case has as the job has it is the same object, since there are many.
    ``answer`` is the bytes that are expected of it, which a checker gets. ``outputs`` stand for what comes back of its
    files.
    """

    name: str
    stdin: bytes
    args: list[str]
    env: dict[str, str]
    limits: PhaseLimits
    answer: int = 0
    outputs: list[Output] = []


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One submission, ready to run.

    ``shell`` is the store path of the captured environment, ``nixpkgs`` the store path of the pin (for ``NIX_PATH``
    inside the sandbox), ``closure`` all store paths that the job may see. ``compile`` is ``None`` when there is no
    compile.sh. ``env`` reaches the last exec only. ``owner`` is the uid of whoever dropped the submission.
    ``memory`` is the bytes that its container may take at most, 0 where nobody counted them. Where there are ``cases``,
    these are run in place of it, each from what compile.sh left. A ``checker`` is a job of its own, which is compiled
    once, and runs after cases whose output is to be checked. No case is begun after ``cases_time`` seconds of them.
    What a ``live`` one prints is told while it runs, but for its cases. ``outputs`` is what comes back of its files,
    which may lie in the directory ``scratch`` for a while, "" the host's own. Where there are ``cases``, it is what all
    of them may have together.
    """

    submission_id: str
    attempt: int
    files: list[JobFile]
    stdin: bytes
    args: list[str]
    env: dict[str, str]
    compile: PhaseLimits | None
    run: PhaseLimits
    shell: str
    nixpkgs: str
    closure: list[str] = []
    owner: int = -1
    memory: int = 0
    cases: list[JobCase] = []
    cases_time: float = math.inf
    checker: Job | None = None
    live: bool = False
    outputs: Wanted | None = None
    scratch: str = ""

    @property
    def longest(self) -> float:
        """Return the seconds on the wall clock that its phases take together at most."""
        compiling = sum(job.compile.time for job in (self, self.checker) if job and job.compile)
        if not self.cases:
            return compiling + self.run.time
        check = self.checker.run.time if self.checker else 0.0
        runs = [case.limits.time + check for case in self.cases]
        return compiling + min(sum(runs), self.cases_time + max(runs))

    def of_case(self, case: JobCase, outputs: Wanted | None = None) -> Job:
        """Return the job that runs one case only, and compiles nothing; ``outputs`` is what comes back of it."""
        return msgspec.structs.replace(
            self,
            stdin=case.stdin,
            args=case.args,
            env=self.env | case.env,
            run=case.limits,
            compile=None,
            cases=[],
            live=False,
            outputs=outputs,
        )

    def without_files(self) -> Job:
        """Return the job without its files, for where they are already."""
        return msgspec.structs.replace(self, files=[])


def trial_job(name: str, script: bytes, limits: PhaseLimits, closure: Iterable[str] = ()) -> Job:
    """Return a job of ours that tries something out: one script, in no environment; ``closure`` is what it may see."""
    return Job(
        submission_id=name,
        attempt=0,
        files=[JobFile("run.sh", script, 0o755)],
        stdin=b"",
        args=[],
        env={},
        compile=None,
        run=limits,
        shell="",
        nixpkgs="",
        closure=list(closure),
    )


class JobResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job: both phases, each with its outcome (``skipped`` where it never ran), and notes on them.

    ``outputs`` are its files that came back, to be closed. They are None where it asks for none, or did not run. Those
    of its cases are ``of_cases``, by number, with contents in one place.
    """

    compile: Phase
    run: Phase
    notes: list[str] = []
    outputs: Returned | None = None
    of_cases: dict[int, Returned] = {}

    def close(self) -> None:
        """Forget the contents of its files. May be repeated."""
        for returned in (self.outputs, *self.of_cases.values()):
            if returned:
                returned.contents.close()


class Runtime(Stored, frozen=True, kw_only=True):
    """What the builder provides to every executor (``builds/runtime.json``): store paths, built and rooted.

    ``bash`` and ``coreutils`` stand behind the shells in ``/bin`` and ``/usr/bin`` and behind ``/usr/bin/env`` in the
    sandbox; ``closure`` is what these two need, and ``tzdata``, which has the time zones, "" where the pin has none.
    ``nixpkgs`` maps the operator's pins to store paths. ``nix`` is Nix itself, "" unless the jobs' environments are
    made to start nix-shell in the sandbox. Jobs alone run any of it.
    """

    system: System
    bash: StorePath
    coreutils: StorePath
    nixpkgs: dict[Pin, StorePath]
    closure: list[StorePath] = msgspec.field(default_factory=list)
    nix: StorePathOrNone = ""
    tzdata: StorePathOrNone = ""


class BuildLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one build."""

    time: Annotated[float, setting("how long a build may take, with its downloads", "seconds", gt=0)] = 600
    silence: Annotated[float, setting("how long it may print nothing", "seconds", gt=0)] = 300
    evaluation_time: Annotated[float, setting("how long its expression may be evaluated", "seconds", gt=0)] = 60
    evaluation_memory: Annotated[int, setting("what its evaluation may take", "bytes", gt=0)] = 2 * 1024**3
    memory: Annotated[
        int,
        setting(
            "what its processes may take together; where the unit has a MemoryMax=, 15/16 of that at most",
            "bytes",
            gt=0,
        ),
    ] = 4 * 1024**3
    log: Annotated[int, setting("what is kept of what it prints, of each stream", "bytes", gt=0)] = 1024**2
    output: Annotated[int, setting("what it may add to the store", "bytes", gt=0)] = 10 * 1024**3
    files: Annotated[int, setting("how many files that may be", gt=0)] = 1_000_000
    fetch_bytes: Annotated[
        int, setting("what downloading one pinned source may transfer, both ways together", "bytes", gt=0)
    ] = 1024**3
    fetch_time: Annotated[float, setting("how long downloading one may take", "seconds", gt=0)] = 300
    derivations: Annotated[
        int, setting("how many derivations but for sources may be built for it, since no binary cache has them", gt=0)
    ] = 150


class BuildResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a build: ``shell`` is the captured environment's store path, or "" when ``phase`` failed.

    ``closure`` is ``shell`` and every store path that it refers to, directly or not.
    """

    phase: Phase
    shell: StorePathOrNone = ""
    closure: list[StorePath] = []
    packages: list[Package] = []
