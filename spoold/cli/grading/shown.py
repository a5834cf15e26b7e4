"""Results of solutions, for a person at a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from spoold.cli import exits, records, render
from spoold.cli.grading.graded import ACCEPTED, COMPILE_ERROR, JUDGE_ERROR, NOT_FAILED, PARTIAL, Graded
from spoold.cli.tables import Table, Text
from spoold.cli.text import printable, readable
from spoold.client.response import COMPLETED, Case, decoded

NO_DEPENDENCIES = "dependencies_failed"
SHOWN = 100  # rows on a terminal
COLOURS = {ACCEPTED: "bold green", PARTIAL: "bold yellow", "skipped": "bold yellow"}


def table(graded: Sequence[Graded], *, terminal: bool) -> Iterator[str | Table]:
    """Yield a table with a row for each solution. Where it is piped, all rows are there."""
    has_expected = any(each.as_expected is not None or each.expected for each in graded)
    headings = ["solution", "verdict", *(["expected"] if has_expected else []), "accepted", "points", "time", "memory"]
    made = Table(*headings, "", right=("accepted", "points", "time", "memory"))
    for each in graded[:SHOWN] if terminal else graded:
        expected = [_expected(each)] if has_expected else []
        made.add_row(
            printable(records.shown(each.name)),
            Text(printable(each.verdict), COLOURS.get(each.verdict, "bold red")),
            *expected,
            f"{each.summary.accepted}/{each.summary.of}",
            f"{each.summary.points:g}/{each.summary.of_points:g}",
            render.seconds(each.time),
            render.size(each.memory),
            why(each),
        )
    yield made
    if terminal and len(graded) > SHOWN:
        yield f"... {len(graded) - SHOWN} more: --csv FILE and --json have all"


def _expected(graded: Graded) -> str:
    if graded.as_expected is None:
        return printable(graded.expected)
    colour = "green" if graded.as_expected else "bold red"
    return Text(f"{printable(graded.expected)}{'' if graded.as_expected else ': NO'}", colour)


def why(graded: Graded) -> str:
    """Return in one line where a solution failed first, and how."""
    if graded.why:
        return printable(graded.why)
    if graded.response.reason:
        return printable(records.shown(graded.response.reason))
    if graded.verdict in (COMPILE_ERROR, NO_DEPENDENCIES):
        phase = graded.response.compile if graded.verdict == COMPILE_ERROR else graded.response.dependencies
        lines = readable(phase.stderr_data or phase.stdout_data).splitlines()
        return next((line for line in lines if line.strip()), "")
    if not graded.cases:
        return "; ".join(map(printable, graded.response.notes))
    failed = next((pair for pair in graded.cases if pair[1].verdict not in NOT_FAILED), None)
    if failed is None:
        return ""
    return f"{printable(records.shown(failed[0].name))}: {how(failed[1])}"


def how(case: Case) -> str:
    """Return in one line what is wrong with a case."""
    words = [case.verdict.replace("_", " ")]
    if case.run.signal:
        words.append(printable(case.run.signal))
    elif case.run.exit_code:
        words.append(f"exit code {case.run.exit_code}")
    if case.message:
        words.append(printable(case.message.splitlines()[0] if case.message.splitlines() else ""))
    elif case.difference:
        words.append(difference(case))
    elif case.verdict == "runtime_error" and case.run.stderr:
        last = [line for line in readable(case.run.stderr_data).splitlines() if line.strip()]
        words += last[-1:]
    return ", ".join(words)


def difference(case: Case) -> str:
    """Return what was printed and what was expected at the first place that is wrong."""
    found = case.difference
    if found is None:
        return ""
    printed = "nothing" if found.printed is None else f"`{printable(found.printed)}`"
    wanted = "nothing more" if found.expected is None else f"`{printable(found.expected)}`"
    return f"line {found.line}: {printed} in place of {wanted}"


def summary(graded: Sequence[Graded], span: float) -> str:
    """Return a line that counts the results by verdict."""
    counts = Counter(each.verdict for each in graded)
    said = ", ".join(f"{count} {printable(verdict).replace('_', ' ')}" for verdict, count in counts.most_common())
    there = sum(each.was_there for each in graded)
    solutions = "1 solution" if len(graded) == 1 else f"{len(graded)} solutions"
    odd = sum(each.as_expected is False for each in graded)
    checked = sum(each.as_expected is not None for each in graded)
    parts = [f"{solutions}: {said or 'none'}"]
    if checked:
        parts.append(f"{checked - odd} of {checked} as the package says")
    parts.append(f"{there} had been run before" if there else f"{span:.1f} s")
    return "; ".join(parts)


def code(graded: Sequence[Graded]) -> int:
    """Return the exit code: the highest of all. If a package expects a result, the code tells whether it came."""
    return max(map(_code, graded), default=exits.OK)


def _code(graded: Graded) -> int:
    if graded.as_expected is not None:
        return exits.OK if graded.as_expected else exits.NOT_COMPLETED
    status = graded.response.status
    if status != COMPLETED:
        return exits.of(status, COMPLETED)
    if any(case.verdict == JUDGE_ERROR for _, case in graded.cases):
        return exits.FAILED
    return exits.OK if graded.verdict == ACCEPTED else exits.NOT_COMPLETED


def stream(text: str, encoding: str) -> str:
    """Return an output as readable text."""
    return readable(decoded(text, encoding))
