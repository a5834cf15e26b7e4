"""Results of groups by the older format: the default grader and its flags.

A group has the results of its cases and subgroups, in order. With ``on_reject: break``, the results after the first one
that is not accepted are left out. The group's grader combines the results into a verdict and a score. Verdicts are the
letters of the older format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from spoold.cli.grading.documents import Document
from spoold.cli.grading.package import Package
from spoold.cli.grading.testdata import Data, Group
from spoold.model.errors import ClientError

WORST = ("JE", "IF", "RTE", "MLE", "TLE", "OLE", "WA", "PE", "AC")
SCORES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "sum": math.fsum,
    "avg": lambda scores: math.fsum(scores) / len(scores),
    "min": min,
    "max": max,
}
VERDICTS = ("worst_error", "no_errors", "first_error", "always_accept")
FLAGS = ("ignore_sample", "accept_if_any_accepted")


class Outcome(NamedTuple):
    """The result of a case or a group: a verdict and a score. The score is None for a case to which nobody gave one."""

    verdict: str
    score: float | None


class Rules(NamedTuple):
    """The rules of a group."""

    breaks: bool
    flags: tuple[str, ...]
    accept_score: float
    reject_score: float
    least: float
    most: float


def rules(group: Group, package: Package) -> Rules:
    """Return the rules of a group. Raises :class:`ClientError` for invalid ones."""
    # Before the format had a name, some keys were in problem.yaml.
    said = Document({**group.inherited, **_old_keys(package)}, group.settings.where)
    if said.text("grading", "default") != "default":
        raise said.wrong("grading", "a package's own graders cannot be run here")
    on_reject = said.text("on_reject", "break")
    if on_reject not in ("break", "continue"):
        raise said.wrong("on_reject", "it has to be break or continue")
    flags = tuple(said.words("grader_flags") or ())
    if unknown := [flag for flag in flags if flag not in (*SCORES, *VERDICTS, *FLAGS)]:
        raise said.wrong("grader_flags", f"{unknown[0]!a}: the default grader has no such flag")
    least, most = _range(said)
    scores = (
        said.number("accept_score", 1.0, least=-math.inf),
        said.number("reject_score", 0.0, least=-math.inf),
    )
    return Rules(on_reject == "break", flags, *scores, least, most)


def _old_keys(package: Package) -> dict[str, object]:
    found: dict[str, object] = {
        key: package.grading.values[key] for key in ("accept_score", "reject_score", "range") if key in package.grading
    }
    words = {"first_error": "break", "grade": "continue"}
    on_reject = package.grading.text("on_reject")
    return found | ({"on_reject": words[on_reject]} if on_reject in words else {})


def _range(said: Document) -> tuple[float, float]:
    try:
        least, most = map(float, said.words("range") or ("-inf", "inf"))
    except ValueError:
        raise said.wrong("range", "it has to be two numbers") from None
    return least, most


class Grader:
    """Grades the test data of a package from the results of its cases."""

    def __init__(self, package: Package, data: Data) -> None:
        self._data = data
        self.rules = {group.name: rules(group, package) for group in data.root.groups()}
        if any("ignore_sample" in each.flags for name, each in self.rules.items() if name) and "ignore_sample" not in (
            self.rules[""].flags
        ):
            raise ClientError("grader_flags: only the group of all test data may have ignore_sample")

    @property
    def most(self) -> float:
        """Return the largest possible score."""
        return self.rules[""].most

    def stop(self) -> bool | str:
        """Return ``stop_on_failure`` for requests: a failed case skips the rest of all, of its group, or nothing."""
        if all(each.breaks for each in self.rules.values()):
            return True
        with_cases = [group.name for group in self._data.root.groups() if group.own]
        return "group" if all(self.rules[name].breaks for name in with_cases) else False

    def grade(self, outcomes: Mapping[int, Outcome]) -> dict[str, Outcome]:
        """Return the result of each group by name; ``""`` is the result of all.

        Groups that were not reached have none.
        """
        found: dict[str, Outcome] = {}
        self._grade(self._data.root, outcomes, found)
        return found

    def _grade(self, group: Group, outcomes: Mapping[int, Outcome], found: dict[str, Outcome]) -> Outcome:
        said = self.rules[group.name]
        results: list[Outcome] = []
        for item in group.items:
            result = self._grade(item, outcomes, found) if isinstance(item, Group) else self._case(said, outcomes, item)
            results.append(result)
            if said.breaks and result.verdict != "AC":
                break
        # Groups inherit this flag like all flags, but it has a meaning only at the top.
        found[group.name] = together(results, [each for each in said.flags if not group.name or each != FLAGS[0]])
        return found[group.name]

    @staticmethod
    def _case(said: Rules, outcomes: Mapping[int, Outcome], place: int) -> Outcome:
        outcome = outcomes.get(place, Outcome("JE", None))
        if outcome.score is not None:
            return outcome
        return outcome._replace(score=said.accept_score if outcome.verdict == "AC" else said.reject_score)


def together(results: Sequence[Outcome], flags: Sequence[str]) -> Outcome:
    """Return the result that the default grader makes from a list of results."""
    if not results:
        return Outcome("AC", 0.0)
    if any(result.verdict == "JE" for result in results):
        return Outcome("JE", 0.0)
    if FLAGS[0] in flags:
        if len(results) > 2:
            return Outcome("JE", 0.0)
        results = results[-1:]
    verdicts = [result.verdict for result in results]
    of_verdicts = next((flag for flag in reversed(flags) if flag in VERDICTS), VERDICTS[0])
    of_scores = next((flag for flag in reversed(flags) if flag in SCORES), "sum")
    score = SCORES[of_scores]([result.score or 0.0 for result in results])
    if of_verdicts == "always_accept" or (FLAGS[1] in flags and "AC" in verdicts):
        return Outcome("AC", score)
    if of_verdicts == "first_error":
        return Outcome(next((verdict for verdict in verdicts if verdict != "AC"), "AC"), score)
    return Outcome(min(verdicts, key=WORST.index), score)
