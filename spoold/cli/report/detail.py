"""The details of one program: why it failed, the differences, its output, and each of its cases.

Each program has a part of the page's ``ROOM``, into which its texts have to fit. The most informative texts come first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spoold.cli import render
from spoold.cli.report import text
from spoold.cli.report.results import FAILED, WELL, Result, mark, words
from spoold.client.response import Case, Difference, Phase, Response

ROOM = 4 << 20  # characters, for the details of all programs
LARGEST, SMALLEST = 64 << 10, 600  # characters for the details of one program
OUTPUT = 4000  # characters of one output
PIECE = 25  # cases that are listed together, or left out together
WENT_WELL = {"", "ok", "skipped"}  # outcomes of phases
FILES = 20  # returned files that are named


class Room:
    """The rest of a program's part of the page."""

    def __init__(self, left: int) -> None:
        self.left = left

    @property
    def of_output(self) -> int:
        """Return the allowed length of an output, which leaves room for others."""
        return min(OUTPUT, max(100, self.left // 4))

    @property
    def of_message(self) -> int:
        """Return the allowed length of a message, which leaves room for others."""
        return min(text.MESSAGE, max(50, self.left // 16))

    def takes(self, html: str) -> bool:
        """Tell whether some HTML fits, and if it does, take the room for it."""
        if len(html) > self.left:
            return False
        self.left -= len(html)
        return True


def rooms(kinds: Sequence[str]) -> Iterator[Room]:
    """Yield the room of each program. Programs that ended well need less."""
    weights = [1 if kind == WELL else 4 for kind in kinds]
    one = ROOM / max(1, sum(weights))
    for weight in weights:
        yield Room(round(min(LARGEST, max(SMALLEST, one * weight))))


def html(result: Result, cases: Sequence[str], width: int, room: Room) -> str:
    """Return a row with the details of a program, across ``width`` columns."""
    response = result.response
    if response is None:
        return ""
    parts, left_out = [], 0
    for part in _parts(response, cases, room):
        if room.takes(part):
            parts.append(part)
        else:
            left_out += 1
    if left_out:
        parts.append(f'<p class="dim">{left_out} more parts of the response did not fit into this page.')
    why = _why(response)
    summary = f"<summary>{why or 'Details'}</summary>"
    return f'<tr class="d"><td colspan="{width}"><details>{summary}<div>{"".join(parts)}</div></details>'


def _why(response: Response) -> str:
    """Return in one line why a program failed; "" where it did not."""
    case = next((each for each in response.cases or () if mark(each.verdict).kind == FAILED), None)
    if case is not None:
        said = case.message or (_told(case.difference) if case.difference else "") or _ended(case.run)
        return f"{text.inline(case.name)}: {words_of(case.verdict)}{', ' if said else ''}{text.inline(said)}"
    if response.reason:
        return text.inline(response.reason)
    return next((_failure(name, phase) for name, phase in _phases(response) if phase.outcome not in WENT_WELL), "")


def _failure(name: str, phase: Phase) -> str:
    """Return in one line how a phase failed, with the first line of its standard error."""
    first = next((line for line in text.kept(phase, "stderr")[: text.MESSAGE].splitlines() if line.strip()), b"")
    said = [_ended(phase) or words(phase.outcome), first.decode(errors="backslashreplace")]
    return f"{name}: {text.inline(': '.join(filter(None, said)))}"


def _phases(response: Response) -> Iterator[tuple[str, Phase]]:
    yield from (("dependencies", response.dependencies), ("compile", response.compile), ("run", response.run))


def words_of(verdict: str) -> str:
    """Return a verdict as HTML."""
    return text.inline(words(verdict))


def _told(difference: Difference) -> str:
    return f"line {difference.line}, column {difference.column}"


def _ended(phase: Phase) -> str:
    """Return how a phase ended, where it did not end well."""
    if phase.signal:
        return phase.signal
    return f"exit code {phase.exit_code}" if phase.exit_code else ""


def _parts(response: Response, cases: Sequence[str], room: Room) -> Iterator[str]:
    yield f'<p class="dim">{_facts(response)}'
    if response.reason:
        yield f"<p>{text.block(response.reason)}"
    yield from (f"<p>{text.inline(note, text.MESSAGE)}" for note in response.notes)
    failed = [each for each in response.cases or () if mark(each.verdict).kind == FAILED]
    yield from (_case(case, room) for case in failed[:1])
    yield from _all_cases(response.cases or (), cases)
    yield from (_case(case, room) for case in failed[1:])
    for name, phase in _phases(response):
        if phase.outcome not in {"", "skipped"}:
            yield f"<p><b>{name}</b>: {_measures(phase)}"
        if name != "dependencies" or phase.outcome not in WENT_WELL:
            yield from _streams(name, phase, room)
    yield from _files(response)


def _facts(response: Response) -> str:
    facts = [text.inline(response.id), text.inline(words(response.status))] if response.id else []
    if response.submitted:
        facts.append(f"submitted {text.inline(response.submitted)}")
    for what, wait in (("the build", response.build_wait), ("a slot", response.queue_wait)):
        if wait:
            facts.append(f"{render.seconds(wait)} waited for {what}")
    if response.attempt and response.attempt > 1:
        facts.append(f"attempt {response.attempt}")
    return " · ".join(facts)


def _measures(phase: Phase) -> str:
    """Return how a phase ended, and the time and memory that it took."""
    found = [
        text.inline(words(phase.outcome)),
        text.inline(_ended(phase)),
        render.seconds(phase.time),
        f"CPU {render.seconds(phase.cpu_time)}" if phase.cpu_time is not None else "",
        render.size(phase.memory),
    ]
    return ", ".join(each for each in found if each and each != "<bdi></bdi>")


def _case(case: Case, room: Room) -> str:
    """Return all details of a case that failed."""
    parts = [f"<h3>{text.inline(case.name)}: {words_of(case.verdict)}</h3><p>{_measures(case.run)}"]
    if case.message:
        parts.append(f"<p>{text.block(case.message, room.of_message)}")
    if case.difference is not None:
        parts.append(_difference(case.difference, room.of_message))
    if case.interaction:
        parts.append(f"<p><b>talk</b><pre>{text.block(case.interaction, room.of_output)}</pre>")
    parts += _streams("", case.run, room)
    return f'<section class="e">{"".join(parts)}</section>'


def _difference(difference: Difference, most: int) -> str:
    """Return both sides of a difference, marked from where they differ."""
    sides = []
    expected, printed = difference.expected, difference.printed
    alike = _alike(expected or "", printed or "")
    for label, side, nothing in (
        ("expected", expected, "nothing more"),
        ("printed", printed, "the output ends"),
    ):
        shown = f'<p class="dim">{nothing}'
        if side is not None:
            shown = f"<pre>{text.block(side[:alike], most)}<mark>{text.block(side[alike:], most)}</mark></pre>"
        sides.append(f"<div><b>{label}</b>{shown}</div>")
    return f'<p>{_told(difference)}</p><div class="b">{"".join(sides)}</div>'


def _alike(one: str, other: str) -> int:
    """Return the length of the common beginning of two texts."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (mine, theirs) in pairs if mine != theirs), min(len(one), len(other)))


def _streams(name: str, phase: Phase, room: Room) -> Iterator[str]:
    """Yield the outputs of a phase."""
    for stream in ("stdout", "stderr"):
        if getattr(phase, stream):
            shown, note = text.excerpt(phase, stream, room.of_output)
            left = f'<p class="dim">{note}' if note else ""
            yield f"<p><b>{name} {stream}</b><pre>{shown}</pre>{left}"


def _files(response: Response) -> Iterator[str]:
    """Yield the names of the files that came back, and of those that are missing."""
    found = response.outputs or []
    if found:
        named = ", ".join(f"{text.inline(each.name)} ({render.size(each.size)})" for each in found[:FILES])
        more = f" and {len(found) - FILES} more" if len(found) > FILES else ""
        yield f"<p><b>files</b>: {named}{more}"
    if response.outputs_missing:
        yield f"<p><b>missing files</b>: {text.inline(', '.join(response.outputs_missing), text.MESSAGE)}"


def _all_cases(cases: Sequence[Case], columns: Sequence[str]) -> Iterator[str]:
    """Yield a list of all cases, in pieces, numbered like their columns."""
    numbers = {name: at for at, name in enumerate(columns, 1)}
    for begin in range(0, len(cases), PIECE):
        listed = "".join(
            f"<li value={numbers.get(case.name, 0)}>{text.inline(case.name, 80)} {words_of(case.verdict)} "
            f"{render.seconds(case.run.time)} {render.size(case.run.memory)}"
            for case in cases[begin : begin + PIECE]
        )
        yield f"<ol>{listed}</ol>"
