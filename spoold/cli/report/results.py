"""The result of a program and of its cases: a word, a mark, and one of three kinds: failed, neither, well."""

from __future__ import annotations

from typing import NamedTuple

from spoold.client.response import COMPLETED, Case, Phase, Response

FAILED, ODD, WELL = "x", "w", "a"  # classes in the style sheet
RANK = {FAILED: 0, ODD: 1, WELL: 2}
NOT_FAILED = {"CANCELLED", "pending", "INSTALLING_DEPENDENCIES", "DEPENDENCIES_INSTALLED", "COMPILING", "RUNNING"}


class Mark(NamedTuple):
    """The text and the kind of a verdict in the grid."""

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
UNKNOWN = Mark("?", ODD)  # a verdict of a later version


class Outcome(NamedTuple):
    """The result of a program: a word by which the page filters, and its kind."""

    word: str
    kind: str

    @property
    def rank(self) -> int:
        """Return a number to sort by: failures come first."""
        return RANK[self.kind]


class Result(NamedTuple):
    """A program and its result."""

    name: str
    id: str
    response: Response | None
    outcome: Outcome

    @property
    def cases(self) -> list[Case]:
        """Return its cases, or an empty list."""
        return (self.response.cases or []) if self.response else []

    @property
    def time(self) -> float | None:
        """Return the seconds of its longest run."""
        return max(self.times, default=None)

    @property
    def memory(self) -> int | None:
        """Return the bytes of its run that used most memory."""
        return max(self.memories, default=None)

    @property
    def times(self) -> list[float]:
        """Return the seconds of each run."""
        return [run.time for run in self._runs if isinstance(run.time, float | int)]

    @property
    def memories(self) -> list[int]:
        """Return the bytes of each run."""
        return [run.memory for run in self._runs if run.memory is not None]

    @property
    def _runs(self) -> list[Phase]:
        return [] if self.response is None else [case.run for case in self.cases] or [self.response.run]


def mark(verdict: str) -> Mark:
    """Return the mark of a verdict."""
    return MARKS.get(verdict, UNKNOWN)


def words(name: str) -> str:
    """Return a verdict or a status in words for a person."""
    return name.replace("_", " ").lower()


def of(response: Response | None) -> Outcome:
    """Return the result of a program: from its cases where it has some, otherwise from its status."""
    if response is None:
        return Outcome("no response", ODD)
    if response.status != COMPLETED:
        kind = ODD if response.status in NOT_FAILED else FAILED
        is_run = response.status == "RUN_FAILED" and response.run.outcome
        return Outcome(words(response.run.outcome if is_run else response.status), kind)
    if response.summary is not None:
        return Outcome(words(response.summary.verdict), mark(response.summary.verdict).kind)
    return Outcome("completed", WELL)
