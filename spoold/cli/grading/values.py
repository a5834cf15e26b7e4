"""Results of solutions for programs: lines of JSON, and a table of comma-separated values for a grade book."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from spoold.cli import records
from spoold.cli.grading import shown
from spoold.cli.grading.graded import Graded, time_of

COLUMNS = ("name", "id", "verdict", "points", "of_points", "accepted", "of", "time", "memory")


def line(graded: Graded) -> bytes:
    """Return a line of JSON. Times are CPU seconds, ``memory`` is bytes. ``response`` is all that the spool said."""
    summary = graded.summary
    said: dict[str, Any] = {
        "name": records.shown(graded.name),
        "Submission_ids": graded.ids,
        "verdict": graded.verdict,
        "points": summary.points,
        "of_points": summary.of_points,
        "accepted": summary.accepted,
        "of": summary.of,
        "time": graded.time,
        "memory": graded.memory,
        "why": shown.why(graded),
        "groups": {records.shown(name): score for name, score in summary.groups.items()},
        "cases": [
            {
                "name": records.shown(test.name),
                "group": records.shown(test.group),
                "hidden": test.hidden,
                "verdict": case.verdict,
                "points": case.points,
                "of_points": test.points,
                "time": time_of(case),
                "memory": case.run.memory,
            }
            for test, case in graded.cases
        ],
        "response": graded.response,
    }
    if graded.expected:
        said |= {"expected": graded.expected, "as_expected": graded.as_expected}
    return msgspec.json.encode(said) + b"\n"


def write_csv(path: str, graded: Sequence[Graded]) -> None:
    """Write a row for each solution: its points, those of each group, and the verdict of each case."""
    groups = list(dict.fromkeys(name for each in graded for name in each.summary.groups))
    cases = list(dict.fromkeys(test.name for each in graded for test, _ in each.cases))
    expected = ["expected", "as_expected"] if any(each.expected for each in graded) else []
    columns = [
        *COLUMNS,
        *expected,
        "why",
        *(f"points {records.shown(name)}" for name in groups),
        *map(records.shown, cases),
    ]
    records.write_values(path, columns, [_row(each, groups, cases, has_expected=bool(expected)) for each in graded])


def _row(graded: Graded, groups: Sequence[str], cases: Sequence[str], *, has_expected: bool) -> list[Any]:
    summary = graded.summary
    verdicts = {test.name: case.verdict for test, case in graded.cases}
    as_expected = "" if graded.as_expected is None else "yes" if graded.as_expected else "no"
    return [
        records.shown(graded.name),
        " ".join(graded.ids),
        graded.verdict,
        summary.points,
        summary.of_points,
        summary.accepted,
        summary.of,
        graded.time,
        graded.memory,
        *([graded.expected, as_expected] if has_expected else []),
        shown.why(graded),
        *(summary.groups[name].points if name in summary.groups else "" for name in groups),
        *(verdicts.get(name, "") for name in cases),
    ]
