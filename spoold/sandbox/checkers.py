"""Checkers: programs of those who grade, each compiled once for whatever is judged by it.

Spec: spool-layout.md, "Checkers". What compile.sh left of one is kept for the next submissions of the same owner with
the same files, environment and limits.
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
from spoold.sandbox.parts import WHOLE, Part, Runs

MOST, ROOM = 32, 32 * 1024 * 1024  # so many checkers, of so many bytes together, are kept
NOT_COMPILED = JobResult(compile=SKIPPED_PHASE, run=SKIPPED_PHASE)


class Compiled(msgspec.Struct, frozen=True):
    """What came of compiling one, and what it left."""

    result: JobResult
    archive: Archive


class Checkers:
    """Those that were used last. Thread-safe; an archive that is dropped here goes when nobody uses it any more."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Compiled] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes) -> Compiled | None:
        """Return one that is kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def keep(self, key: bytes, compiled: Compiled) -> None:
        """Keep one that was compiled well; those that were not used for the longest time make room for it."""
        if compiled.archive.size > ROOM:
            return
        with self._lock:
            self._kept[key] = compiled
            while len(self._kept) > MOST or sum(each.archive.size for each in self._kept.values()) > ROOM:
                self._kept.popitem(last=False)


class Checker:
    """A checker of one job: compiled when it is needed first, and never in a container with anything of the program."""

    def __init__(self, job: Job | None, checkers: Checkers, run: Runs) -> None:
        self._job, self._checkers, self._run = job, checkers, run
        self._compiled: Compiled | None = None

    def check(self, check: Check) -> JobResult:
        """Run it once; raises what running a job does, but for a fault of the checker's own."""
        assert self._job  # noqa: S101 - for mypy: a judge asks for no check without one
        if self._compiled is None:
            self._compiled = self._compile(self._job)
        before, archive = self._compiled.result.compile, self._compiled.archive
        if before.outcome not in (Outcome.OK, Outcome.SKIPPED):
            return self._compiled.result
        files = check.files if archive.size else [*self._job.files, *check.files]
        job = msgspec.structs.replace(
            self._job, files=files, stdin=check.stdin, args=check.args, compile=None, outputs=check.outputs
        )
        result = self._run_own(job, Part(before=archive) if archive.size else WHOLE)
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
        except ClientError as error:  # a fault of the checker's, and not of whoever is judged
            failed = Phase(stderr=str(error), outcome=Outcome.INTERNAL_ERROR)
            return msgspec.structs.replace(NOT_COMPILED, **{"compile" if part.after else "run": failed})


def _key(job: Job) -> bytes:
    """Return what stands for all that compiling depends on, and for whose it is."""
    parts = (job.owner, job.shell, job.nixpkgs, job.closure, job.compile, job.files)
    return hashlib.sha256(msgspec.msgpack.encode(parts)).digest()


def _unheard(name: str, phase: Phase) -> None:
    """Hear of a phase that no client is told of."""
