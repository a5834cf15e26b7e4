"""Checkers: what they are given, and what their end means, by the protocols of other judges.

Spec: spool-layout.md, "Checkers". Sources: the Kattis problem package format (output validators), testlib.h 0.9.45,
CMS' documentation of checkers ("standard manager output").
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType

from spoold.model.cases import Protocol
from spoold.model.job import JobFile, JobResult
from spoold.model.limits import KIB
from spoold.model.outputs import Output, Wanted
from spoold.model.response import Outcome, Phase, Verdict
from spoold.model.verdicts import Judgement

INPUT, ANSWER, OUTPUT, FEEDBACK = "judge/input", "judge/answer", "judge/output", "feedback/"
RESERVED = ("judge", "feedback")  # no place for a checker's own files
ARGS = {
    "kattis": (INPUT, ANSWER, FEEDBACK),
    "testlib": (INPUT, OUTPUT, ANSWER),
    "cms": (INPUT, ANSWER, OUTPUT),
}
# Of the files that a checker may leave: points, a part of the points, and words. All are small.
SCORE, PART_OF_SCORE = "feedback/score.txt", "feedback/score_multiplier.txt"
WORDS = ("feedback/judgemessage.txt", "feedback/teammessage.txt")
MOST_WORDS = 1000  # characters of what a checker says that a client is told
POINTS = re.compile(r"\bpoints?\s+([-+]?[0-9][0-9.eE+-]*)")
KATTIS = {42: Verdict.ACCEPTED, 43: Verdict.WRONG_ANSWER}
TESTLIB = {0: Verdict.ACCEPTED, 1: Verdict.WRONG_ANSWER, 2: Verdict.WRONG_ANSWER, 4: Verdict.WRONG_ANSWER,
           8: Verdict.WRONG_ANSWER}  # fmt: skip
NO_FEEDBACK: Mapping[str, bytes] = MappingProxyType({})
WITH_POINTS = 7
PART, PARTS = 50, 200  # the first exit code for a part, in so many of a whole


def files_for(stdin: bytes, answer: bytes, output: bytes) -> list[JobFile]:
    """Return what lies beside a checker when it runs."""
    named = {INPUT: stdin, ANSWER: answer, OUTPUT: output, FEEDBACK: b""}
    return [JobFile(name, content, 0o644) for name, content in named.items()]


def arguments_for(protocol: Protocol, args: list[str]) -> list[str]:
    """Return the arguments of a checker whose own are ``args``."""
    return [*ARGS[protocol], *args]


def feedback_of(protocol: Protocol) -> Wanted | None:
    """Return which files of a checker are to come back."""
    if protocol != "kattis":
        return None
    outputs = [Output(path=path) for path in (SCORE, PART_OF_SCORE, *WORDS)]
    return Wanted(outputs=outputs, files=len(outputs), file_size=64 * KIB, total=len(outputs) * 64 * KIB)


def judgement(
    protocol: Protocol, run: Phase, of_points: float, feedback: Mapping[str, bytes] = NO_FEEDBACK
) -> Judgement:
    """Return what a checker found whose run was this; ``of_points`` is what the case is worth.

    ``feedback`` is the contents of the files of :func:`feedback_of` that it left.
    """
    if run.outcome not in (Outcome.OK, Outcome.NONZERO_EXIT) or not isinstance(run.exit_code, int):
        return _failed(run, f"it ended with {run.outcome}")
    if run.stdout_truncated is True or run.stderr_truncated is True:
        return _failed(run, "it printed more than its limit keeps")
    if protocol == "kattis":
        return _by_kattis(run, of_points, feedback)
    return _by_testlib(run, of_points) if protocol == "testlib" else _by_cms(run, of_points)


def _by_kattis(run: Phase, of_points: float, feedback: Mapping[str, bytes]) -> Judgement:
    found = KATTIS.get(int(run.exit_code))  # type: ignore[arg-type]
    text = {name: content.decode(errors="replace") for name, content in feedback.items()}
    words = next(filter(None, (_words(text.get(name, "")) for name in WORDS)), "")
    if found is None:
        return _failed(run, f"it ended with {run.exit_code}")
    if found is Verdict.ACCEPTED and (SCORE in text or PART_OF_SCORE in text):
        name, worth = (SCORE, 1.0) if SCORE in text else (PART_OF_SCORE, of_points)
        points = _number(text[name].strip())
        return _partial(points and points * worth, of_points, words) or _failed(run, f"{name} is no number")
    return Judgement(found, message=words)


def not_compiled(result: JobResult) -> Judgement:
    """Return what is told where a checker could not be compiled, for which nobody else is to blame."""
    words = "; ".join(result.notes)
    return _failed(
        result.compile, f"its compile.sh ended with {result.compile.outcome}" + (f": {words}" if words else "")
    )


def _by_testlib(run: Phase, of_points: float) -> Judgement:
    code, words = int(run.exit_code), _words(run.stderr)  # type: ignore[arg-type]
    if code in TESTLIB:
        return Judgement(TESTLIB[code], message=words)
    if code == WITH_POINTS and (found := POINTS.search(run.stderr)):
        return _partial(_number(found[1]), of_points, words) or _failed(run, "its points are no number")
    if PART <= code <= PART + PARTS:
        return _partial((code - PART) / PARTS * of_points, of_points, words) or _failed(run, "")
    return _failed(run, f"it ended with {code}")


def _by_cms(run: Phase, of_points: float) -> Judgement:
    if run.exit_code != 0:
        return _failed(run, f"it ended with {run.exit_code}")
    part = _number(run.stdout.partition("\n")[0].strip())
    if part is None or not 0 <= part <= 1:
        return _failed(run, "the first line that it printed is no number from 0 to 1")
    words = _words(run.stderr.partition("\n")[0]).removeprefix("translate:")
    return _partial(part * of_points, of_points, words) or _failed(run, "")


def _partial(points: float | None, of_points: float, words: str) -> Judgement | None:
    """Return what so many points mean; None where they are none."""
    if points is None:
        return None
    if points >= of_points:
        return Judgement(Verdict.ACCEPTED, message=words)
    if points <= 0:
        return Judgement(Verdict.WRONG_ANSWER, message=words)
    return Judgement(Verdict.PARTIAL, points, words)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _failed(run: Phase, why: str) -> Judgement:
    last = _words(run.stderr.strip().rpartition("\n")[2])
    return Judgement(Verdict.JUDGE_ERROR, message=f"checker: {why}" + (f"; its last words: {last}" if last else ""))


def _words(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= MOST_WORDS else words[:MOST_WORDS] + "..."
