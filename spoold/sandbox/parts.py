"""Parts of a job: what one container does of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from spoold.host.spill import Spill
from spoold.model.job import Job, JobResult
from spoold.model.response import Phase
from spoold.sandbox.archive import Archive

OnPhase = Callable[[str, Phase], None]


class Part(NamedTuple):
    """The part of a job that one container does: all of it, or only what is between two archives.

    It begins with the work directory ``before``. Where ``after`` is given it ends with compile.sh, and what that left
    goes there. Contents of files that come back are added to ``contents``; where it has none, these have a place of
    their own.
    """

    before: Archive | None = None
    after: Archive | None = None
    contents: Spill | None = None

    @property
    def beside(self) -> int:
        """Return the bytes of memory that its container needs for the archive."""
        return self.before.size + self.before.room if self.before else 0


WHOLE = Part()


class Runs(Protocol):
    """Runs part of a job in some container."""

    def __call__(self, job: Job, part: Part, on_phase: OnPhase) -> JobResult: ...
