"""The result of a submission by the rules of its package: verdicts, scores and groups, for a time limit.

A submission of the package runs with a margin above the time limit, so a case may have run longer than the limit. Its
verdicts are determined twice, with the limit and with the margin. The submission is as expected if one of the two is.

The exit code of a validator is the verdict. Its scores are at the beginning of the message, where the run.sh of
``material`` puts them. So 0 points do not make an answer wrong, and a score may be any number.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from msgspec.structs import replace

from spoold.cli.grading import expected, newer, older
from spoold.cli.grading.cases import Test
from spoold.cli.grading.expected import Submission
from spoold.cli.grading.graded import ACCEPTED, JUDGE_ERROR, PARTIAL, SKIPPED, Graded, time_of
from spoold.cli.grading.older import Outcome
from spoold.cli.grading.package import Package
from spoold.cli.grading.testdata import Data
from spoold.client.response import COMPLETED, Case, Score, Summary

LETTERS = {
    ACCEPTED: "AC",
    PARTIAL: "AC",
    "wrong_answer": "WA",
    "time_limit": "TLE",
    "memory_limit": "RTE",
    "runtime_error": "RTE",
    "output_limit": "OLE",
    "judge_error": "JE",
}
IN_RULES = {"OLE": "RTE"}  # submissions.yaml has no letter for OLE
SCORE = re.compile(r"score(?P<multiplier>_multiplier)?=(?P<number>\S*) ?")
ENDING = 0.5  # seconds that a program has to end after an interactor has found it wrong, see spool-layout.md
NOT_RUN = ("COMPLETED", "COMPILE_FAILED")


class _Found(NamedTuple):
    """The result with a limit: letters and cases by place, the verdict of all, the score, and both for each group."""

    letters: Mapping[int, str]
    cases: Mapping[int, Case]
    result: str
    score: float
    groups: Mapping[str, tuple[str, float]]


class Judge:
    """Determines verdicts and scores by the rules of a package."""

    def __init__(self, package: Package, data: Data) -> None:
        self.package = package
        self._data = data
        self._older = older.Grader(package, data) if data.is_older else None
        self._newer = None if data.is_older else newer.Scorer(package, data)
        self._places = {test.name: place for place, test in enumerate(data.tests)}

    @functools.cached_property
    def tests(self) -> list[Test]:
        """Return the cases with the points that they are worth: 0 where only a validator decides."""
        tests = self._data.tests
        if self._newer:
            worth = self._newer.points()
            return [test._replace(points=worth[place]) for place, test in enumerate(tests)]
        if self._older and self.package.is_scoring:
            scores = {name: max(0.0, said.accept_score) for name, said in self._older.rules.items()}
            return [test._replace(points=scores[test.group]) for test in tests]
        return tests

    @property
    def most(self) -> float:
        """Return the most points that are possible; infinite where nothing says it."""
        return self._older.most if self._older else self._newer.most if self._newer else math.inf

    def stop(self) -> bool | str:
        """Return the ``stop_on_failure`` of requests: which cases may be skipped after one that fails."""
        return self._older.stop() if self._older else False

    def judged(self, graded: Graded, limit: float) -> Graded:
        """Return the result of a submission for a time limit."""
        if graded.response.status != COMPLETED:
            of_points = self.most if self.package.is_scoring else float(len(self._data.tests))
            return graded._replace(summary=replace(graded.summary, of_points=_finite(of_points)))
        found = self._found(graded, limit)
        cases = tuple((test, found.cases[self._places[test.name]]) for test, _ in graded.cases)
        summary = self._summary(found)
        response = replace(graded.response, cases=[case for _, case in cases], summary=summary)
        return graded._replace(cases=cases, summary=summary, response=response)

    def checked(self, graded: Graded, submission: Submission, limit: float, margin: float) -> Graded:
        """Return what ``judged`` does, and whether the result is as expected, with the limit or with the margin."""
        judged = self.judged(graded, limit)._replace(expected=submission.directory)
        status = graded.response.status
        if status not in NOT_RUN:
            return judged
        if status != COMPLETED:
            return judged._replace(as_expected=False)
        why = self._broken(self._found(graded, limit), submission)
        if why and not self._broken(self._found(graded, margin), submission):
            why = ""
        return judged._replace(as_expected=not why, why=why)

    def _broken(self, found: _Found, submission: Submission) -> str:
        """Return why a result is not the expected one, "" where it is."""
        wanted = submission.result
        result = found.result
        if wanted == "PAC":
            if result not in ("AC", "PAC"):
                return f"it is {result}, but should be accepted with fewer than all points"
            if self.package.is_scoring and found.score == self._best:
                return f"it has all points ({found.score:g}), but should have fewer"
        elif wanted and result != wanted:
            return f"it is {result}, but should be {wanted}"
        letters = {place: IN_RULES.get(letter, letter) for place, letter in found.letters.items()}
        messages = {place: case.message or "" for place, case in found.cases.items()}
        scores = {name: score for name, (_, score) in found.groups.items()} | {"": found.score}
        return expected.broken(submission.rules, self._data.tests, letters, messages, scores)

    @property
    def _best(self) -> float:
        if self._older and self.package.minimizes:
            return self._older.rules[""].least
        return self.most

    def _found(self, graded: Graded, limit: float) -> _Found:
        cases, scores = {}, {}
        for test, case in graded.cases:
            place = self._places[test.name]
            cases[place], scores[place] = self._scored(place, _at(case, limit))
        letters = {place: LETTERS.get(case.verdict, "JE") for place, case in cases.items() if case.verdict != SKIPPED}
        if self._older:
            return self._by_older(self._older, cases, letters, scores)
        if self._newer and self.package.is_scoring:
            return self._by_newer(self._newer, cases, letters)
        result = next((letter for letter in letters.values() if letter != "AC"), "AC")
        return _Found(letters, cases, result, sum(case.points for case in cases.values()), {})

    def _scored(self, place: int, case: Case) -> tuple[Case, float | None]:
        """Return a case with its points, and the score from its validator, None where it gave no score."""
        match = SCORE.match(case.message or "")
        if match is None:
            return (self._without_score(case) if LETTERS.get(case.verdict) == "AC" else case), None
        case = replace(case, message=(case.message or "")[match.end() :] or None)
        if not self.package.custom_scores or not self.package.is_scoring or LETTERS.get(case.verdict) != "AC":
            return case, None
        try:
            score = float(match["number"])
        except ValueError:
            score = math.nan
        worth = self.tests[place].points
        score = score * worth if match["multiplier"] else score
        if not math.isfinite(score):
            return replace(case, verdict=JUDGE_ERROR, points=0.0, message="the validator's score is no number"), None
        full = self._older is not None or score >= worth
        return replace(case, points=score, verdict=ACCEPTED if full else PARTIAL), score

    def _without_score(self, case: Case) -> Case:
        """Return an accepted case without a score of its validator. The older format makes that an error."""
        package = self.package
        if package.is_newer or not (package.is_scoring and package.custom_scores):
            return case
        return replace(case, verdict=JUDGE_ERROR, points=0.0, message="the validator gave no score")

    @staticmethod
    def _by_older(
        grader: older.Grader, cases: Mapping[int, Case], letters: Mapping[int, str], scores: Mapping[int, float | None]
    ) -> _Found:
        results = grader.grade({place: Outcome(letter, scores[place]) for place, letter in letters.items()})
        groups = {name: (outcome.verdict, outcome.score or 0.0) for name, outcome in results.items() if name}
        whole = results[""]
        return _Found(letters, cases, whole.verdict, whole.score or 0.0, groups)

    @staticmethod
    def _by_newer(scorer: newer.Scorer, cases: Mapping[int, Case], letters: Mapping[int, str]) -> _Found:
        points = {place: case.points for place, case in cases.items()}
        scores = scorer.score(points, {place: letter == "AC" for place, letter in letters.items()})
        score = scores.get(newer.SECRET, 0.0)
        failed = next((letter for letter in letters.values() if letter != "AC"), "AC")
        result = "AC" if failed == "AC" or score >= scorer.most else "PAC" if score > 0 else failed
        groups = {name: ("AC" if each > 0 else failed, each) for name, each in scores.items()}
        return _Found(letters, cases, result, score, groups)

    def _summary(self, found: _Found) -> Summary:
        failed = next(
            (case.verdict for place, case in found.cases.items() if found.letters.get(place) == found.result), ""
        )
        verdict = ACCEPTED if found.result == "AC" else PARTIAL if found.result == "PAC" else failed or found.result
        if verdict == ACCEPTED and self.package.is_scoring and math.isfinite(self._best) and found.score != self._best:
            verdict = PARTIAL
        accepted = sum(case.verdict == ACCEPTED for case in found.cases.values())
        points, of_points = self._points(found)
        return Summary(
            verdict=verdict,
            accepted=accepted,
            of=len(self._data.tests),
            points=points,
            of_points=of_points,
            groups=self._groups(found),
        )

    def _points(self, found: _Found) -> tuple[float, float]:
        if not self.package.is_scoring:
            return float(sum(case.verdict == ACCEPTED for case in found.cases.values())), float(len(self._data.tests))
        score = found.score if found.result in ("AC", "PAC") else 0.0
        return score, _finite(self.most) or score

    def _groups(self, found: _Found) -> dict[str, Score]:
        scores: dict[str, Score] = {}
        for group in self._data.root.groups():
            places = [place for place in group.places() if place in found.cases]
            if not group.name or not places:
                continue
            verdicts = [found.cases[place].verdict for place in places]
            accepted = verdicts.count(ACCEPTED)
            worst = next((verdict for verdict in verdicts if verdict not in (ACCEPTED, SKIPPED)), ACCEPTED)
            _, score = found.groups.get(group.name, ("", float(accepted)))
            of_points = self._of_group(group.name, len(places))
            scores[group.name] = Score(
                verdict=worst, accepted=accepted, of=len(places), points=score, of_points=of_points
            )
        return scores

    def _of_group(self, name: str, cases: int) -> float:
        most = float(cases)
        if self.package.is_scoring and self._older:
            most = self._older.rules[name].most
        elif self._newer and self.package.is_scoring:
            most = self._newer.rules[name].most if name in self._newer.rules else 0.0
        return _finite(most)


def _finite(number: float) -> float:
    return number if math.isfinite(number) else 0.0


def _at(case: Case, limit: float) -> Case:
    """Return a case as it would have ended with a time limit.

    CPU time of a program after it was found wrong does not count.
    """
    seconds = time_of(case)
    if seconds is not None and case.run.outcome == "cancelled":
        seconds -= ENDING
    if case.verdict in (SKIPPED, "time_limit") or seconds is None or seconds <= limit:
        return case
    return replace(case, verdict="time_limit", points=0.0, difference=None, message=None)
