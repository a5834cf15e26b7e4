"""Reports of gradings in formats of other tools: JUnit's XML, Gradescope's ``results.json``, and CTRF.

Gradescope shows its report to the person who is graded. So for a hidden case it contains only the points, and says that
the case is hidden. The two other reports are for graders, and contain everything.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import msgspec

from spoold.cli import records, report
from spoold.cli.grading import shown
from spoold.cli.grading.cases import Test
from spoold.cli.grading.graded import ACCEPTED, JUDGE_ERROR, PARTIAL, SKIPPED, Graded, time_of
from spoold.cli.grading.values import write_csv
from spoold.cli.text import printable, readable
from spoold.client import names
from spoold.client.response import COMPLETED, Case
from spoold.model.errors import OperatorError

MOST = 4000  # characters of an output in a report
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
TOOL = "spoolctl grade"


def write_junit(path: str, graded: Sequence[Graded]) -> None:
    """Write JUnit's XML: a suite for each solution."""
    suites = "".join(map(_suite, graded))
    records.write(path, f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n{suites}</testsuites>\n'.encode())


def _suite(graded: Graded) -> str:
    name = _attribute(records.shown(graded.name))
    verdicts = [case.verdict for _, case in graded.cases]
    cases = "".join(_junit_case(name, test, case) for test, case in graded.cases)
    errors = verdicts.count(JUDGE_ERROR)
    skipped = verdicts.count(SKIPPED)
    failures = sum(verdict not in (ACCEPTED, SKIPPED, JUDGE_ERROR) for verdict in verdicts)
    if not graded.cases:  # a solution that was not run counts as one failed case
        errors = 1
        problem = f"<error message={_attribute(graded.verdict)}>{_text(shown.why(graded))}</error>"
        cases = f'    <testcase classname={name} name="compile and run">{problem}</testcase>\n'
    span = sum(time_of(case) or 0 for _, case in graded.cases)
    counts = f'tests="{len(verdicts) or 1}" failures="{failures}" errors="{errors}" skipped="{skipped}"'
    return f'  <testsuite name={name} {counts} time="{span:.3f}">\n{cases}  </testsuite>\n'


def _junit_case(suite: str, test: Test, case: Case) -> str:
    head = f"    <testcase classname={suite} name={_attribute(records.shown(test.name))} "
    head += f'time="{time_of(case) or 0:.3f}"'
    if case.verdict == ACCEPTED:
        return f"{head}/>\n"
    if case.verdict == SKIPPED:
        return f"{head}><skipped/></testcase>\n"
    word = "error" if case.verdict == JUDGE_ERROR else "failure"
    about = f"type={_attribute(case.verdict)} message={_attribute(shown.how(case))}"
    told = f"{_text(shown.how(case))}\n{_text(_output(case))}"
    return f"{head}><{word} {about}>{told}</{word}></testcase>\n"


def _attribute(text: str) -> str:
    return quoteattr(NO_XML.sub("\ufffd", printable(text)))


def _text(text: str) -> str:
    return escape(NO_XML.sub("\ufffd", text))


def _output(case: Case) -> str:
    """Return the shortened output of a case."""
    parts = []
    for name, data in (("stdout", case.run.stdout_data), ("stderr", case.run.stderr_data)):
        if data:
            text = readable(data)
            parts.append(f"{name}:\n{text[:MOST]}{'...' if len(text) > MOST else ''}")
    return "\n".join(parts)


# -- Gradescope


def write_gradescope(path: str, graded: Sequence[Graded]) -> None:
    """Write Gradescope's results: a file for one solution, or a directory with a file for each of several."""
    if len(graded) == 1:
        records.write(path, msgspec.json.format(msgspec.json.encode(_gradescope(graded[0])), indent=2) + b"\n")
        return
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"{path} cannot be made, with a file for each solution: {error.strerror}") from error
    taken: set[str] = set()
    for number, each in enumerate(graded):
        name = names.proper(each.name)
        name = name if name not in taken else f"{name}-{number}"
        taken.add(name)
        data = msgspec.json.format(msgspec.json.encode(_gradescope(each)), indent=2) + b"\n"
        records.write(os.path.join(path, f"{name}.json"), data)


def _gradescope(graded: Graded) -> dict[str, Any]:
    failed = "" if graded.cases else f"{graded.verdict.replace('_', ' ')}\n{_why_not_run(graded)}"
    return {
        "score": graded.summary.points,
        "output": failed or f"{graded.summary.accepted} of {graded.summary.of} cases accepted",
        "output_format": "text",
        "stdout_visibility": "hidden",
        "tests": [_gradescope_case(number, test, case) for number, (test, case) in enumerate(graded.cases, 1)],
    }


def _why_not_run(graded: Graded) -> str:
    compiled = graded.response.compile
    text = readable(compiled.stderr_data + compiled.stdout_data) if graded.response.status != COMPLETED else ""
    return (text or shown.why(graded))[:MOST]


def _gradescope_case(number: int, test: Test, case: Case) -> dict[str, Any]:
    said: dict[str, Any] = {
        "number": str(number),
        "name": printable(records.shown(test.name)),
        "score": case.points,
        "max_score": test.points,
        "status": "passed" if case.verdict == ACCEPTED else "failed",
        "visibility": "hidden" if test.hidden else "visible",
        "tags": [printable(records.shown(test.group))] if test.group else [],
    }
    if not test.hidden:
        said["output"] = "" if case.verdict == ACCEPTED else f"{shown.how(case)}\n{_output(case)}".strip()
        said["output_format"] = "text"
    return said


# -- CTRF


def write_ctrf(path: str, graded: Sequence[Graded]) -> None:
    """Write a report in the Common Test Report Format. Times are whole milliseconds."""
    tests = [each for one in graded for each in _ctrf_tests(one)]
    counts = {word: sum(test["status"] == word for test in tests) for word in ("passed", "failed", "skipped", "other")}
    now = int(time.time() * 1000)
    summary = {"tests": len(tests), **counts, "pending": 0, "suites": len(graded), "start": now, "stop": now}
    tool = {"name": TOOL, **({"version": found} if (found := _version()) else {})}
    report = {
        "reportFormat": "CTRF",
        "specVersion": "0.0.0",
        "generatedBy": TOOL,
        "results": {"tool": tool, "summary": summary, "tests": tests},
    }
    records.write(path, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def _ctrf_tests(graded: Graded) -> list[dict[str, Any]]:
    suite = [printable(records.shown(graded.name)) or "solution"]
    if not graded.cases:
        problem = {"message": shown.why(graded), "rawStatus": graded.verdict}
        return [{"name": "compile and run", "status": "failed", "duration": 0, "suite": suite, **problem}]
    return [_ctrf_case(suite, test, case) for test, case in graded.cases]


STATUS = {ACCEPTED: "passed", SKIPPED: "skipped", JUDGE_ERROR: "other", PARTIAL: "failed"}


def _ctrf_case(suite: list[str], test: Test, case: Case) -> dict[str, Any]:
    said: dict[str, Any] = {
        "name": printable(records.shown(test.name)) or "case",
        "status": STATUS.get(case.verdict, "failed"),
        "duration": round((time_of(case) or 0) * 1000),
        "suite": [*suite, *([printable(records.shown(test.group))] if test.group else [])],
        "rawStatus": case.verdict,
        "tags": ["hidden" if test.hidden else "visible"],
        "labels": {"points": case.points, "of_points": test.points},
    }
    if case.verdict not in (ACCEPTED, SKIPPED):
        said["message"] = shown.how(case)
    return said


def _version() -> str:
    try:
        return version("spoold")
    except PackageNotFoundError:
        return ""


def write_html(path: str, graded: Sequence[Graded]) -> None:
    """Write a page to look at: failures first, with their output and the expected output."""
    rows = [report.Row(records.shown(each.name), " ".join(each.ids), each.response) for each in graded]
    cases = dict.fromkeys(case.name for each in graded for _, case in each.cases)
    made = f"{TOOL}, {time.strftime('%Y-%m-%d %H:%M %Z')}"
    records.write(path, report.html("Grades", rows, list(cases), made).encode())


# Options of ``grade`` and the functions that write their files. A new format needs an entry here and in FILES.
WRITERS: Mapping[str, Callable[[str, Sequence[Graded]], None]] = {
    "csv": write_csv,
    "html": write_html,
    "junit": write_junit,
    "gradescope": write_gradescope,
    "ctrf": write_ctrf,
}
