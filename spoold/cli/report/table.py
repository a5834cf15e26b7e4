"""The table: a row for each program with a mark for each case, and below the row the details of the program.

Without the script this is a plain table. With it, a heading of class ``s`` gets a button that sorts. ``data-v`` is the
number by which a cell sorts, where its text is not a number. Rows omit the closing tags that HTML allows to omit,
because there may be tens of thousands of cells.
"""

from __future__ import annotations

from collections.abc import Sequence

from spoold.cli import render
from spoold.cli.report import detail, text
from spoold.cli.report.results import MARKS, Result, mark, words
from spoold.model import plots

CELLS = 60_000  # of the grid
LEAST, MOST = 20, 200  # columns of cases: at least, and at most, whatever the number of programs


def html(results: Sequence[Result], cases: Sequence[str]) -> str:
    """Return the table, preceded by its filters and its legend."""
    shown = cases[: max(LEAST, min(MOST, CELLS // max(1, len(results))))]
    headings = ["Program", "Result", *(("Passed", "Points") if cases else ()), "Time", "Memory"]
    sortable = "".join(f'<th scope="col" class="s{" n" if at > 1 else ""}">{each}' for at, each in enumerate(headings))
    columns = "".join(
        f'<th scope="col" class="c" title="{text.attribute(name)}">{at}' for at, name in enumerate(shown, 1)
    )
    more = f'<th scope="col" class="s n">Failed of {len(cases) - len(shown):,} more' if len(shown) < len(cases) else ""
    width = len(headings) + len(shown) + bool(more)
    rooms = detail.rooms([each.outcome.kind for each in results])
    rows = "\n".join(
        _row(each, cases, len(shown), number) + detail.html(each, cases, width, room)
        for number, (each, room) in enumerate(zip(results, rooms, strict=True), 1)
    )
    return (
        f"{_form(results, shown)}\n{_legend(cases)}\n"
        f'<div class="t" role="region" aria-label="Programs" tabindex="0"><table id="t" data-cases="{len(headings)}">\n'
        f"<thead><tr>{sortable}{columns}{more}</thead>\n{rows}\n</table></div>"
    )


def _form(results: Sequence[Result], shown: Sequence[str]) -> str:
    """Return the fields that filter. The script shows them."""
    outcomes = dict.fromkeys(each.outcome.word for each in results)
    chosen = "".join(f'<option value="{text.attribute(each)}">{text.attribute(each)}' for each in outcomes)
    cases = "".join(f'<option value="{at}">{at + 1} {text.attribute(name)}' for at, name in enumerate(shown))
    of_case = (
        f'<label>Failed in <select name="case"><option value="">any case or none{cases}</select></label>'
        if shown
        else ""
    )
    return (
        '<form id="f" hidden><label>Find <input type="search" name="find" autocomplete="off"></label>'
        f'<label>Result <select name="result"><option value="">all{chosen}</select></label>{of_case}'
        '<button type="reset">All</button><button type="button" id="u" aria-pressed="false">Open details</button>'
        '<p id="n" role="status" aria-live="polite"></p></form>'
    )


def _legend(cases: Sequence[str]) -> str:
    if not cases:
        return ""
    marks = "".join(
        f'<li><span class="{each.kind}">{each.text}</span> {words(name)}</li>' for name, each in MARKS.items()
    )
    named = "".join(f"<li>{text.inline(name)}" for name in cases)
    return f'<details><summary>Marks and cases</summary><ul class="k">{marks}</ul><ol>{named}</ol></details>'


def _row(result: Result, cases: Sequence[str], shown: int, number: int) -> str:
    """Return the row of a program. The first ``shown`` of ``cases`` have a column."""
    id_ = f"<small>{text.inline(result.id)}</small>" if result.id and result.id != result.name else ""
    word, kind = result.outcome
    cells = [
        f'<tbody data-r="{text.attribute(word)}"><tr><th scope="row">{text.inline(result.name)}{id_}',
        f'<td data-v="{number}"><span class="{kind}">{text.inline(word)}</span>',
    ]
    if cases:
        cells += _score(result)
    cells.append(_measured(result.time, result.times, render.seconds(result.time), "time"))
    cells.append(_measured(result.memory, result.memories, render.size(result.memory), "memory"))
    verdicts = {case.name: mark(case.verdict) for case in result.cases}
    for name in cases[:shown]:
        cells.append(f"<td class={found.kind}>{found.text}" if (found := verdicts.get(name)) else "<td>")
    if shown < len(cases):
        rest = [verdicts[name].kind == "x" for name in cases[shown:] if name in verdicts]
        cells.append(f'<td class="n">{sum(rest)}')
    return "".join(cells)


def _score(result: Result) -> list[str]:
    score = result.response.summary if result.response else None
    if score is None:
        return ['<td class="n">', '<td class="n">']
    return [
        f'<td class="n" data-v="{score.accepted}">{score.accepted} of {score.of}',
        f'<td class="n" data-v="{score.points}">{score.points:g} p',
    ]


def _measured(value: float | None, each: Sequence[float], shown: str, what: str) -> str:
    """Return a cell with the largest value, and a small plot of all values."""
    if value is None:
        return '<td class="n">'
    plot = plots.bars(each, f"{what} by case, up to {shown}") if len(each) > 1 else ""
    return f'<td class="n" data-v="{value}">{shown}{plot}'
