"""Checkers: the graders' own programs. Each is compiled once for all that it judges.

Spec: spool-layout.md, "Checkers". The archive of what a checker's compile.sh left is kept. Later submissions of the
same owner use it where the checker's files, environment and limits are the same.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

import msgspec

from spoold.model.errors import ClientError
from spoold.model.job import Job, JobResult
from spoold.model.response import SKIPPED_PHASE, Outcome, Phase
from spoold.sandbox import Check
from spoold.sandbox.archive import Archive
from spoold.sandbox.parts import Part, Runs
from spoold.sandbox.talk import Side

MOST, ROOM = 32, 32 * 1024 * 1024  # how many checkers are kept, and how many bytes in all
NOT_COMPILED = JobResult(compile=SKIPPED_PHASE, run=SKIPPED_PHASE)


class Compiled(msgspec.Struct, frozen=True):
    """The result of compiling one checker, and the archive of what compile.sh left."""

    result: JobResult
    archive: Archive


class Checkers:
    """The checkers that were used last. Thread-safe. An archive that is dropped here is freed once nobody uses it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Compiled] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes) -> Compiled | None:
        """Return the checker that is kept under ``key``, None where there is none."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def keep(self, key: bytes, compiled: Compiled) -> None:
        """Keep a checker that was compiled well; drop those that were not used for the longest time to make room."""
        if compiled.archive.size > ROOM:
            return
        with self._lock:
            self._kept[key] = compiled
            while len(self._kept) > MOST or sum(each.archive.size for each in self._kept.values()) > ROOM:
                self._kept.popitem(last=False)


class Checker:
    """The checker of one job. It is compiled when first needed, and shares no container with the judged program."""

    def __init__(self, job: Job | None, checkers: Checkers, run: Runs) -> None:
        self._job, self._checkers, self._run = job, checkers, run
        self._compiled: Compiled | None = None

    def is_compiled(self) -> bool:
        """Tell whether it can be run. Compile it where that was not yet tried; raises what running a job raises."""
        assert self._job  # noqa: S101 - for mypy: a judge asks for no check where there is no checker
        if self._compiled is None:
            self._compiled = self._compile(self._job)
        return self._compiled.result.compile.outcome in (Outcome.OK, Outcome.SKIPPED)

    def check(self, check: Check, side: Side | None = None, more: float = 0.0) -> JobResult:
        """Run the checker once; raises what running a job raises, except for a fault of the checker's own.

        As a ``side`` of a talk it may take ``more`` seconds than its own limit.
        """
        is_compiled = self.is_compiled()
        assert self._job  # noqa: S101 - for mypy, as above
        assert self._compiled  # noqa: S101 - for mypy, as above
        before, archive = self._compiled.result.compile, self._compiled.archive
        if not is_compiled:
            return self._compiled.result
        files = check.files if archive.size else [*self._job.files, *check.files]
        job = msgspec.structs.replace(
            self._job, files=files, stdin=check.stdin, args=check.args, compile=None, outputs=check.outputs
        )
        if side:
            limits = msgspec.structs.replace(job.run, time=job.run.time + more)
            job = msgspec.structs.replace(job, run=limits)
        result = self._run_own(job, Part(before=archive if archive.size else None, side=side))
        return msgspec.structs.replace(result, compile=before)

    def _compile(self, job: Job) -> Compiled:
        archive = Archive(job.scratch)
        if job.compile is None:
            return Compiled(NOT_COMPILED, archive)
        key = _key(job)
        if kept := self._checkers.get(key):
            return kept
        compiled = Compiled(self._run_own(job, Part(after=archive)), archive)
        if compiled.result.compile.outcome is Outcome.OK:
            self._checkers.keep(key, compiled)
        return compiled

    def _run_own(self, job: Job, part: Part) -> JobResult:
        try:
            return self._run(job, part, _unheard)
        except ClientError as error:  # the checker is at fault, not the program that it judges
            failed = Phase(stderr=str(error), outcome=Outcome.INTERNAL_ERROR)
            return msgspec.structs.replace(NOT_COMPILED, **{"compile" if part.after else "run": failed})


def _key(job: Job) -> bytes:
    """Return a hash of all that compiling depends on, and of the owner."""
    parts = (job.owner, job.shell, job.nixpkgs, job.closure, job.compile, job.files)
    return hashlib.sha256(msgspec.msgpack.encode(parts)).digest()


def _unheard(name: str, phase: Phase) -> None:
    """Ignore a phase that no client is told of."""
