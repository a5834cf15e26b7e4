"""Parts of a job: the work that one container does for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from spoold.host.spill import Spill
from spoold.model.job import Job, JobResult
from spoold.model.response import Phase
from spoold.sandbox.archive import Archive
from spoold.sandbox.talk import Side

OnPhase = Callable[[str, Phase], None]


class Part(NamedTuple):
    """The part of a job that one container does: all of it, or only what lies between two archives.

    The part begins with the work directory ``before``, where that is given. Where ``after`` is given, the part ends
    with compile.sh, and what compile.sh left goes to ``after``. The contents of files that come back are added to
    ``contents``. Without ``contents``, they get a place of their own. Where ``side`` is given, the run is that side of
    a talk.
    """

    before: Archive | None = None
    after: Archive | None = None
    contents: Spill | None = None
    side: Side | None = None

    @property
    def beside(self) -> int:
        """Return the bytes of memory that the container needs for the archive ``before``."""
        return self.before.size + self.before.room if self.before else 0

    @property
    def talks(self) -> bool:
        """Tell whether another container runs something for the same job at the same time."""
        return self.side is not None


WHOLE = Part()


class Runs(Protocol):
    """Runs part of a job in some container."""

    def __call__(self, job: Job, part: Part, on_phase: OnPhase) -> JobResult: ...
