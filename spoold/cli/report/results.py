"""What came of a program and of its cases, in a word, a mark, and one of three kinds: failed, neither, well."""

from __future__ import annotations

from typing import NamedTuple

from spoold.client.response import COMPLETED, Case, Phase, Response

FAILED, ODD, WELL = "x", "w", "a"  # classes of the style
RANK = {FAILED: 0, ODD: 1, WELL: 2}
NOT_FAILED = {"CANCELLED", "pending", "INSTALLING_DEPENDENCIES", "DEPENDENCIES_INSTALLED", "COMPILING", "RUNNING"}


class Mark(NamedTuple):
    """How a verdict looks in the grid, and its kind."""

    text: str
    kind: str


MARKS = {
    "accepted": Mark("✓", WELL),
    "wrong_answer": Mark("WA", FAILED),
    "partial": Mark("PA", ODD),
    "time_limit": Mark("TL", FAILED),
    "memory_limit": Mark("ML", FAILED),
    "output_limit": Mark("OL", FAILED),
    "runtime_error": Mark("RE", FAILED),
    "judge_error": Mark("JE", FAILED),
    "skipped": Mark("-", ODD),
}
UNKNOWN = Mark("?", ODD)  # of a later version


class Outcome(NamedTuple):
    """What came of a program: a word to choose it by, and its kind."""

    word: str
    kind: str

    @property
    def rank(self) -> int:
        """Return a number to sort by: what failed comes first."""
        return RANK[self.kind]


class Result(NamedTuple):
    """A program, and what came of it."""

    name: str
    id: str
    response: Response | None
    outcome: Outcome

    @property
    def cases(self) -> list[Case]:
        """Return its cases, none where it has none."""
        return (self.response.cases or []) if self.response else []

    @property
    def time(self) -> float | None:
        """Return the seconds of its run, or of its longest."""
        return max(self.times, default=None)

    @property
    def memory(self) -> int | None:
        """Return the bytes of its run, or of its largest."""
        return max(self.memories, default=None)

    @property
    def times(self) -> list[float]:
        """Return the seconds of each run that there was."""
        return [run.time for run in self._runs if isinstance(run.time, float | int)]

    @property
    def memories(self) -> list[int]:
        """Return the bytes of each run that there was."""
        return [run.memory for run in self._runs if run.memory is not None]

    @property
    def _runs(self) -> list[Phase]:
        return [] if self.response is None else [case.run for case in self.cases] or [self.response.run]


def mark(verdict: str) -> Mark:
    """Return the mark of a verdict."""
    return MARKS.get(verdict, UNKNOWN)


def words(name: str) -> str:
    """Return a verdict or a status as a person reads it."""
    return name.replace("_", " ").lower()


def of(response: Response | None) -> Outcome:
    """Return what came of a program: by its cases where it has some, else by its status."""
    if response is None:
        return Outcome("no response", ODD)
    if response.status != COMPLETED:
        kind = ODD if response.status in NOT_FAILED else FAILED
        is_run = response.status == "RUN_FAILED" and response.run.outcome
        return Outcome(words(response.run.outcome if is_run else response.status), kind)
    if response.summary is not None:
        return Outcome(words(response.summary.verdict), mark(response.summary.verdict).kind)
    return Outcome("completed", WELL)
