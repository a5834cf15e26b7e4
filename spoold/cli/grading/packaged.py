"""Grading by a problem package: its test data, limits, validator, and expectations for its submissions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spoold.cli.grading import expected, material, testdata
from spoold.cli.grading.expected import Submission
from spoold.cli.grading.graded import Graded, time_of
from spoold.cli.grading.package import Limits, load, run_limits
from spoold.cli.grading.results import Judge
from spoold.cli.grading.solutions import Finder, Solution
from spoold.cli.grading.suite import Requests, Suite
from spoold.cli.programs import require_inside
from spoold.cli.text import printable
from spoold.client.request import File
from spoold.model.errors import ClientError

if TYPE_CHECKING:
    from spoold.cli.grading.command import Wanted
    from spoold.cli.grading.flow import Runner

LONG = 300.0  # CPU seconds for an accepted submission while there is no limit yet


def grade(runner: Runner, finder: Finder, path: Path, given: Sequence[Path], wanted: Wanted) -> list[Graded]:
    """Return the results of the given submissions, or of those of the package where none are given."""
    if wanted.compare or wanted.checker or wanted.interactor or wanted.points:
        raise click.UsageError("--compare, --checker, --interactor and --points cannot be set: the package says them")
    package = load(path)
    if wanted.hide and package.is_scoring and package.custom_scores:
        raise click.UsageError("--hide cannot be used: hidden cases would not show the scores of the validator")
    data = testdata.load(package)
    checker = material.checker(package, finder)
    if checker is None:
        data = testdata.compared(data)
    if unknown := (*package.unknown, *data.unknown):
        click.echo(
            f"these keys are in no format that is known here, and have no effect: {'; '.join(unknown)}", err=True
        )
    judge = Judge(package, data)
    own, left_out = expected.find(package, is_older=data.is_older, endings=finder.endings)
    suite = Suite(judge.tests, checker=checker, talks=package.is_interactive, hide=wanted.hide)
    grading = _Grading(runner, finder, judge, own=own, suite=suite, wanted=wanted)
    if given:
        return grading.of_given(finder.find(given).solutions)
    if left_out:
        click.echo(
            "left out, because the package does not mention them or they are no programs: "
            + ", ".join(map(printable, left_out)),
            err=True,
        )
    if not own:
        raise ClientError(f"{printable(str(path))}: there are no submissions in it: name some after the package")
    return grading.of_own()


class _Grading:
    """The submissions of one package, graded with one time limit."""

    def __init__(
        self, runner: Runner, finder: Finder, judge: Judge, *, own: list[Submission], suite: Suite, wanted: Wanted
    ) -> None:
        self._runner = runner
        self._finder = finder
        self._judge = judge
        self._own = own
        self._suite = suite
        self._wanted = wanted
        self._measured: dict[str, Graded] = {}

    @property
    def _limits(self) -> Limits:
        return self._judge.package.limits

    def of_given(self, solutions: Sequence[Solution]) -> list[Graded]:
        """Return the results of submissions that are no part of the package."""
        limit = self._time_limit()
        requests = Requests(self._suite._replace(stop=self._wanted.stop or self._judge.stop()))
        ran = self._runner.grade(requests, self._with_includes(solutions), self._keys(limit))
        return [self._judge.judged(graded, limit) for graded in ran]

    def of_own(self) -> list[Graded]:
        """Return the results of the package's own submissions, and whether they are as expected."""
        limit = self._time_limit()
        by_result = all(not submission.rules for submission in self._own)
        stop = self._wanted.stop or (self._judge.stop() if by_result else False)
        requests = Requests(self._suite._replace(stop=stop))
        left = [submission for submission in self._own if submission.name not in self._measured]
        margin = limit * self._limits.margin
        ran = self._runner.grade(requests, [self._solution(each) for each in left], self._keys(margin))
        found = {**self._measured, **{graded.name: graded for graded in ran}}
        return [self._judge.checked(found[each.name], each, limit, margin) for each in self._own]

    def _time_limit(self) -> float:
        """Return the time limit: of the command line, of the package, or by its accepted submissions."""
        if self._wanted.time:
            return float(self._wanted.keys()["limits"]["run"]["cpu_time"])
        if self._limits.time is not None:
            return self._limits.time
        accepted = {submission.name: submission for submission in self._own if submission.timed}
        if not accepted:
            raise ClientError(
                "the package has neither a time limit nor accepted submissions to take it from: set --time"
            )
        solutions = [self._solution(submission) for submission in accepted.values()]
        ran = self._runner.grade(Requests(self._suite), solutions, self._keys(LONG))
        self._measured = {graded.name: graded for graded in ran}
        times = [time for graded in ran for time in _times(graded, accepted[graded.name].timed)]
        if not times:
            why = next((graded.response.reason or graded.verdict for graded in ran), "")
            raise ClientError(f"no accepted submission could be run, so there is no time limit ({why}): set --time")
        limit = self._limits.time_for(max(times))
        slowest = f"the slowest submission that must keep it took {max(times):.2f} s"
        click.echo(f"time limit: {limit:g} s; {slowest}, times {self._limits.factor:g}", err=True)
        return limit

    def _keys(self, seconds: float) -> dict[str, Any]:
        """Return the keys of requests that give each case ``seconds`` of CPU time."""
        keys = self._wanted._replace(time=None).keys()
        limits: dict[str, Any] = run_limits(self._judge.package, seconds)
        asked: Mapping[str, Any] = keys.get("limits", {})
        for phase, said in asked.items():
            limits[phase] = {**limits.get(phase, {}), **said}
        return {**keys, "limits": limits}

    def _solution(self, submission: Submission) -> Solution:
        package, finder = self._judge.package, self._finder
        return Solution(submission.name, lambda: material.files_of(package, finder, submission), submission.path)

    def _with_includes(self, solutions: Sequence[Solution]) -> list[Solution]:
        """Return solutions with the files that the package includes.

        Files that must not be sent are refused as usual.
        """

        def with_includes(each: Solution) -> Solution:
            made = self._solution(Submission(each.path, each.name, "", ()))

            def files() -> Sequence[File]:
                if each.folder is not None:
                    require_inside(each.path, each.folder)
                return made.files()

            return made._replace(files=files)

        return [with_includes(each) for each in solutions]


def _times(graded: Graded, patterns: Sequence[str]) -> list[float]:
    """Return the times of the cases that match one of the patterns."""
    return [
        time
        for test, case in graded.cases
        if (time := time_of(case)) is not None
        and any(not pattern or expected.matches(pattern, test.name) for pattern in patterns)
    ]
