"""The objects that the executor hands to a sandbox, and that the builder hands to the executor.

These objects cross between layers that do not import each other, so they live here. The builder's objects are read by
daemons that have more rights than the builder. So each field takes only values that it is meant for, and a path is a
path in the Nix store.
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
    """One case of a job: the input, arguments and limits of its program.

    ``env`` is laid over the job's. Where a case has the same value as the job, it is the same object, since there are
    many cases. ``answer`` is the size in bytes of the expected output, which a checker gets. ``outputs`` are the
    patterns of the files that come back.
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
    compile.sh. ``env`` reaches the last exec only. ``owner`` is the uid of the user who dropped the submission.
    ``memory`` is the most bytes that its container may take, 0 where nobody counted them. Where there are ``cases``,
    they run in place of the job itself, each from the files that compile.sh left. A ``checker`` is a job of its own. It
    is compiled once, and runs after each case whose output is to be checked. A checker that ``talks`` is an interactor:
    it runs together with the program of each case. After ``cases_time`` seconds of cases, no other case is begun. The
    output of a ``live`` job is told while it runs, except for its cases. ``outputs`` says
    which files come back. They may lie in the directory ``scratch`` for a while ("" is the host's own). Where there are
    ``cases``, ``outputs`` bounds what all of them may have together.
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
    talks: bool = False
    live: bool = False
    outputs: Wanted | None = None
    scratch: str = ""

    @property
    def longest(self) -> float:
        """Return the most seconds on the wall clock that its phases can take together."""
        compiling = sum(job.compile.time for job in (self, self.checker) if job and job.compile)
        if not self.cases:
            return compiling + self.run.time
        check = self.checker.run.time if self.checker else 0.0
        runs = [case.limits.time + check for case in self.cases]
        return compiling + min(sum(runs), self.cases_time + max(runs))

    def of_case(self, case: JobCase, outputs: Wanted | None = None) -> Job:
        """Return the job that runs only this case, and compiles nothing. ``outputs`` says which files come back."""
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
        """Return the job without its files, for a container that has them already."""
        return msgspec.structs.replace(self, files=[])


def trial_job(name: str, script: bytes, limits: PhaseLimits, closure: Iterable[str] = ()) -> Job:
    """Return a job of ours that tries something: one script, in no environment. It may see the paths of ``closure``."""
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
    """The outcome of a job: both phases with their outcomes (``skipped`` where one never ran), and notes on them.

    ``outputs`` are the files that came back, to be closed. They are None where the job asks for none, or did not run.
    ``of_cases`` are the files of its cases, by the number of the case. All their contents are in one place.
    """

    compile: Phase
    run: Phase
    notes: list[str] = []
    outputs: Returned | None = None
    of_cases: dict[int, Returned] = {}

    def close(self) -> None:
        """Forget the contents of the files. May be repeated."""
        for returned in (self.outputs, *self.of_cases.values()):
            if returned:
                returned.contents.close()


class Runtime(Stored, frozen=True, kw_only=True):
    """The store paths, built and rooted, that the builder provides to every executor (``builds/runtime.json``).

    In the sandbox, ``bash`` and ``coreutils`` stand behind the shells in ``/bin`` and ``/usr/bin`` and behind
    ``/usr/bin/env``. ``tzdata`` has the time zones, "" where the pin has none. ``closure`` is all that these three
    need. ``nixpkgs`` maps the operator's pins to store paths. ``nix`` is Nix itself, "" unless the jobs' environments
    are made to start nix-shell in the sandbox. Only jobs run any of these programs.
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
    silence: Annotated[float, setting("how long a build may print nothing", "seconds", gt=0)] = 300
    evaluation_time: Annotated[
        float, setting("how long the evaluation of a build's expression may take", "seconds", gt=0)
    ] = 60
    evaluation_memory: Annotated[int, setting("how much memory the evaluation may take", "bytes", gt=0)] = 2 * 1024**3
    memory: Annotated[
        int,
        setting(
            "how much memory a build's processes may take together; if the unit has a MemoryMax=, 15/16 of that at "
            "most",
            "bytes",
            gt=0,
        ),
    ] = 4 * 1024**3
    log: Annotated[int, setting("how much of a build's output is kept, for each stream", "bytes", gt=0)] = 1024**2
    output: Annotated[int, setting("how much a build may add to the store", "bytes", gt=0)] = 10 * 1024**3
    files: Annotated[int, setting("how many files a build may add to the store", gt=0)] = 1_000_000
    fetch_bytes: Annotated[
        int, setting("how much the download of one pinned source may transfer, both ways together", "bytes", gt=0)
    ] = 1024**3
    fetch_time: Annotated[float, setting("how long the download of one pinned source may take", "seconds", gt=0)] = 300
    derivations: Annotated[
        int,
        setting(
            "how many derivations one build may include that no binary cache has; sources do not count",
            gt=0,
        ),
    ] = 150


class BuildResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a build: ``shell`` is the captured environment's store path, or "" when ``phase`` failed.

    ``closure`` is ``shell`` and every store path that it refers to, directly or not.
    """

    phase: Phase
    shell: StorePathOrNone = ""
    closure: list[StorePath] = []
    packages: list[Package] = []
