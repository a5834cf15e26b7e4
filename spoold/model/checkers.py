"""Checkers and interactors: their files and arguments, and what their end means, by the protocols of other judges.

Spec: spool-layout.md, "Checkers" and "Interactors". Sources: the Kattis problem package format (output validators),
testlib.h 0.9.45, CMS' documentation of checkers ("standard manager output").
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from spoold.model.cases import Protocol
from spoold.model.job import BuildResult, JobFile, JobResult
from spoold.model.limits import KIB
from spoold.model.outputs import Output, Wanted
from spoold.model.response import Outcome, Phase, Verdict, decode_stream
from spoold.model.verdicts import Judgement, printed

INPUT, ANSWER, OUTPUT, FEEDBACK = "judge/input", "judge/answer", "judge/output", "feedback/"
RESERVED = ("judge", "feedback")  # a checker's own files may not lie there
ARGS = {
    "kattis": (INPUT, ANSWER, FEEDBACK),
    "testlib": (INPUT, OUTPUT, ANSWER),
    "cms": (INPUT, ANSWER, OUTPUT),
}
# The files that a checker may leave: points, a part of the points, and words. All of them are small.
SCORE, PART_OF_SCORE = "feedback/score.txt", "feedback/score_multiplier.txt"
WORDS = ("feedback/judgemessage.txt", "feedback/teammessage.txt")
MOST_FEEDBACK = 1024 * KIB  # bytes of one of them
MOST_WORDS = 1000  # characters of a checker's words that a client is shown
NUMBER = re.compile(r"[-+]?+(?:[0-9]++\.?+[0-9]*+|\.[0-9]++)(?:[eE][-+]?+[0-9]++)?+")
NIX_ERROR = re.compile(r"error: .")  # above a trace there is "error:" alone, and the error itself is below
NIX_PLACE = re.compile(r"at cutor\.nix:\d+:\d+:?\Z")
POINTS = re.compile(r"\bpoints?\s+([-+]?[0-9][0-9.eE+-]*)")
KATTIS = {42: Verdict.ACCEPTED, 43: Verdict.WRONG_ANSWER}
TESTLIB = {0: Verdict.ACCEPTED, 1: Verdict.WRONG_ANSWER, 2: Verdict.WRONG_ANSWER, 4: Verdict.WRONG_ANSWER,
           8: Verdict.WRONG_ANSWER}  # fmt: skip
NO_FEEDBACK: Mapping[str, bytes] = MappingProxyType({})
WITH_POINTS = 7
PART, PARTS = 50, 200  # the first exit code for a part of the points, and how many steps make the whole
# The exit codes by which an interactor says that the program may be right, at least in part.
WELL = {"kattis": frozenset({42}), "testlib": frozenset({0, WITH_POINTS, *range(PART + 1, PART + PARTS + 1)})}


def files_for(stdin: bytes, answer: bytes, output: bytes) -> list[JobFile]:
    """Return the files that lie beside a checker when it runs."""
    named = {INPUT: stdin, ANSWER: answer, OUTPUT: output, FEEDBACK: b""}
    return [JobFile(name, content, 0o644) for name, content in named.items()]


def files_for_talk(stdin: bytes, answer: bytes) -> list[JobFile]:
    """Return the files that lie beside an interactor when it runs."""
    named = {INPUT: stdin, ANSWER: answer, FEEDBACK: b""}
    return [JobFile(name, content, 0o644) for name, content in named.items()]


def arguments_for(protocol: Protocol, args: list[str]) -> list[str]:
    """Return all arguments of a checker. ``args`` are its own, which come last."""
    return [*ARGS[protocol], *args]


def feedback_of(protocol: Protocol) -> Wanted | None:
    """Return which files of a checker or interactor come back. None where its protocol has none."""
    if protocol != "kattis":
        return None
    outputs = [Output(path=path) for path in (SCORE, PART_OF_SCORE, *WORDS)]
    return Wanted(outputs=outputs, files=len(outputs), file_size=MOST_FEEDBACK, total=len(outputs) * MOST_FEEDBACK)


def judgement(
    protocol: Protocol,
    run: Phase,
    of_points: float,
    feedback: Mapping[str, bytes] = NO_FEEDBACK,
    *,
    who: str = "checker",
    lost: Sequence[str] = (),
) -> Judgement:
    """Return what a checker found, by its ``run``. ``of_points`` is what the case is worth.

    ``feedback`` has the contents of those files of :func:`feedback_of` that the checker left, by name. ``lost`` says
    which of them did not come back, and why. ``who`` is what a message calls it.
    """
    found = _judgement(protocol, run, of_points, feedback, "; ".join(lost))
    return found._replace(message=f"{who}: {found.message}") if found.verdict is Verdict.JUDGE_ERROR else found


def _judgement(protocol: Protocol, run: Phase, of_points: float, feedback: Mapping[str, bytes], lost: str) -> Judgement:
    if run.outcome not in (Outcome.OK, Outcome.NONZERO_EXIT) or not isinstance(run.exit_code, int):
        return _failed(run, f"it ended with {run.outcome}")
    if run.stdout_truncated is True or run.stderr_truncated is True:
        return _failed(run, "it printed more than its output limit")
    if protocol == "kattis":
        return _by_kattis(run, of_points, feedback, lost)
    return _by_testlib(run, of_points) if protocol == "testlib" else _by_cms(run, of_points)


def _by_kattis(run: Phase, of_points: float, feedback: Mapping[str, bytes], lost: str) -> Judgement:
    found = KATTIS.get(int(run.exit_code))  # type: ignore[arg-type]
    text = {name: content.decode(errors="replace") for name, content in feedback.items()}
    words = next(filter(None, (_words(text.get(name, "")) for name in WORDS)), "")
    if found is None:
        return _failed(run, f"it ended with {run.exit_code}")
    name = next((each for each in (SCORE, PART_OF_SCORE) if each in text), "")
    if found is Verdict.ACCEPTED and not name and lost:
        return _failed(run, f"what it left in {FEEDBACK} cannot be read, so nobody knows the points: {lost}")
    words = words or lost
    if found is not Verdict.ACCEPTED or not name:
        return Judgement(found, message=words)
    number = _number(text[name].strip())
    if number is None:
        return _failed(run, f"{name} is not a number")
    return _partial(number, of_points, words) if name == SCORE else _part(number, of_points, words)


def not_compiled(result: JobResult, who: str = "checker") -> Judgement:
    """Return the judgement where a checker could not be compiled. Only the checker is to blame."""
    words = "; ".join(result.notes)
    why = f"{who}: its compile.sh ended with {result.compile.outcome}"
    return _failed(result.compile, why + (f": {words}" if words else ""))


def why_lost(build: BuildResult, who: str = "checker") -> str:
    """Return why a checker cannot be run after this build of its dependencies, "" where it can."""
    if build.shell:
        return ""
    words = _words(_why_not_built(build.phase.stderr))
    return f"{who}: its dependencies cannot be installed ({build.phase.outcome})" + (f": {words}" if words else "")


def _why_not_built(stderr: str) -> str:
    """Return what Nix says first of an error, with the place in the expression, and what spoold adds at the end.

    The last lines of Nix are often the place alone, or an excerpt of the expression. Without an error the last line is
    the best that there is.
    """
    lines = [line.strip() for line in stderr.strip().split("\n")]
    at = next((number for number, line in enumerate(lines) if NIX_ERROR.match(line)), None)
    if at is None:
        return lines[-1]
    place = next((line.removesuffix(":") for line in lines[at + 1 :] if NIX_PLACE.match(line)), "")
    ours = f"; {lines[-1]}" if lines[-1].startswith("spoold: ") else ""
    return f"{lines[at]} {place}".rstrip() + ours


def _by_testlib(run: Phase, of_points: float) -> Judgement:
    code, said = int(run.exit_code), _said(run)  # type: ignore[arg-type]
    words = _words(said)
    if code in TESTLIB:
        return Judgement(TESTLIB[code], message=words)
    if code == WITH_POINTS and (found := POINTS.search(said)):
        points = _number(found[1])
        return _failed(run, "its points are not a number") if points is None else _partial(points, of_points, words)
    if PART <= code <= PART + PARTS:
        return _part((code - PART) / PARTS, of_points, words)
    return _failed(run, f"it ended with {code}")


def _by_cms(run: Phase, of_points: float) -> Judgement:
    if run.exit_code != 0:
        return _failed(run, f"it ended with {run.exit_code}")
    part = _number(printed(run).partition(b"\n")[0].decode(errors="replace").strip())
    if part is None or not 0 <= part <= 1:
        return _failed(run, "the first line that it printed is not a number from 0 to 1")
    words = _words(_said(run).partition("\n")[0]).removeprefix("translate:")
    return _part(part, of_points, words)


def _part(part: float, of_points: float, words: str) -> Judgement:
    """Return what a ``part`` of all points means, also for a case that is worth none."""
    return _partial(part, 1.0, words)._replace(points=part * of_points if 0 < part < 1 else None)


def _partial(points: float, of_points: float, words: str) -> Judgement:
    """Return what these ``points`` mean where ``of_points`` are all."""
    if points <= 0:
        return Judgement(Verdict.WRONG_ANSWER, message=words)
    if points >= of_points:
        return Judgement(Verdict.ACCEPTED, message=words)
    return Judgement(Verdict.PARTIAL, points, words)


def _number(text: str) -> float | None:
    number = float(text) if NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None


def _failed(run: Phase, why: str) -> Judgement:
    last = _words(_said(run).strip().rpartition("\n")[2])
    return Judgement(Verdict.JUDGE_ERROR, message=why + (f"; its last words: {last}" if last else ""))


def _said(run: Phase) -> str:
    """Return what a checker printed on its standard error. Bytes that are not UTF-8 are replaced."""
    return decode_stream(run.stderr, run.stderr_encoding).decode(errors="replace")


def _words(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= MOST_WORDS else words[:MOST_WORDS] + "..."
