"""Scores by the newer format. ``secret`` and its groups have at most ``max_score`` points.

The score of a group is the sum of its cases, or their minimum, or all or nothing (``pass-fail``). In a pass-fail
problem a submission is accepted if all cases are accepted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from spoold.cli.grading.cases import SAMPLE
from spoold.cli.grading.package import Package
from spoold.cli.grading.testdata import TOPS, Data, Group

SECRET = TOPS[1]
WAYS = ("pass-fail", "sum", "min")


class Rules(NamedTuple):
    """The rules of a group.

    ``most`` is infinite where there is no bound. The groups in ``needs`` have to pass first.
    """

    most: float
    way: str
    needs: tuple[str, ...]


def rules(group: Group) -> Rules:
    """Return the rules of a group. Raises :class:`ClientError` for invalid ones."""
    said = group.settings
    is_all = group.name == SECRET
    way = said.text("score_aggregation", "sum" if is_all else "pass-fail")
    if way not in WAYS:
        raise said.wrong("score_aggregation", f"it has to be one of {', '.join(WAYS)}")
    if said.text("max_score") == "unbounded":
        most = math.inf
    else:
        most = said.number("max_score", 100.0 if is_all else math.nan)
    needs = [
        need if need.startswith((SAMPLE, SECRET)) else f"{SECRET}/{need}" for need in said.words("require_pass") or ()
    ]
    return Rules(math.inf if math.isnan(most) else most, way, tuple(needs))


class Scorer:
    """Scores the test data of a package."""

    def __init__(self, package: Package, data: Data) -> None:
        self._data = data
        self._is_scoring = package.is_scoring
        self.secret = data.find(SECRET)
        self.groups = [
            group for group in (self.secret.groups() if self.secret else ()) if group.name == SECRET or group.is_marked
        ]
        self.rules = {group.name: rules(group) for group in self.groups} if package.is_scoring else {}

    @property
    def most(self) -> float:
        """Return the most points that are possible."""
        return self.rules[SECRET].most if SECRET in self.rules else math.inf

    def points(self) -> dict[int, float]:
        """Return the points that each case is worth: 0 where only a validator decides."""
        worth = dict.fromkeys(range(len(self._data.tests)), 0.0 if self._is_scoring else 1.0)
        for name, said in self.rules.items():
            places = self._places(name)
            for place in places:
                if math.isfinite(said.most):
                    worth[place] = said.most if said.way == "min" else said.most / len(places)
        return worth

    def _places(self, name: str) -> list[int]:
        """Return the cases of a group. For ``secret``, return those that are in no group."""
        group = self._data.find(name)
        places = group.places() if group else []
        if name != SECRET:
            return places
        inner = {place for each in self.groups if each.name != SECRET for place in each.places()}
        return [place for place in places if place not in inner]

    def score(self, points: Mapping[int, float], passed: Mapping[int, bool]) -> dict[str, float]:
        """Return the points of each group and of ``secret``, by the points of each case and whether it is accepted."""
        found: dict[str, float] = {}
        for group in self.groups:
            if group.name != SECRET:
                found[group.name] = self._score(group.name, points, passed)
        if self.secret:
            of_groups = [found[group.name] for group in self.groups if group.name != SECRET]
            found[SECRET] = self._of_all(of_groups, points, passed)
        return found

    def _score(self, name: str, points: Mapping[int, float], passed: Mapping[int, bool]) -> float:
        said, places = self.rules[name], self._places(name)
        if not self._may(said, passed):
            return 0.0
        if said.way == "pass-fail":
            return (said.most if math.isfinite(said.most) else 0.0) if all(passed[place] for place in places) else 0.0
        return (math.fsum if said.way == "sum" else min)([points[place] for place in places] or [0.0])

    def _may(self, said: Rules, passed: Mapping[int, bool]) -> bool:
        """Tell whether all groups that have to pass first have passed."""
        groups = [group for name in said.needs if (group := self._data.find(name))]
        return all(passed[place] for group in groups for place in group.places())

    def _of_all(self, of_groups: list[float], points: Mapping[int, float], passed: Mapping[int, bool]) -> float:
        said = self.rules[SECRET]
        if not of_groups:
            return self._score(SECRET, points, passed)
        if not self._may(said, passed):
            return 0.0
        if said.way == "pass-fail":
            group = self.secret
            return said.most if group and all(passed[place] for place in group.places()) else 0.0
        return min(said.most, (math.fsum if said.way == "sum" else min)(of_groups))
