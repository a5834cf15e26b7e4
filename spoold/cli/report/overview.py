"""The top of the page: how many programs had which result, and how much time and memory they took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median

from spoold.cli import render
from spoold.cli.report import text
from spoold.cli.report.results import Result
from spoold.model import plots


def html(results: Sequence[Result]) -> str:
    """Return the HTML of the overview."""
    counts = sorted(Counter(each.outcome for each in results).items(), key=lambda each: (each[0].rank, -each[1]))
    told = ", ".join(f"{number:,} {outcome.word}" for outcome, number in counts)
    named = "".join(
        f'<li><span class="{outcome.kind}">{number:,}</span> {text.inline(outcome.word)}</li>'
        for outcome, number in counts
    )
    programs = f"{len(results):,} program{'' if len(results) == 1 else 's'}"
    parts = [
        f"<p><strong>{programs}</strong></p>",
        plots.shares([(number, outcome.kind) for outcome, number in counts], text.plain(told, text.MESSAGE)),
        f'<ul class="k">{named}</ul>',
        _figure("Time", [each.time for each in results if each.time is not None], render.seconds),
        _figure(
            "Memory", [each.memory for each in results if each.memory is not None], lambda size: render.size(int(size))
        ),
    ]
    return f'<section class="o" aria-label="Overview">{"".join(parts)}</section>'


def _figure(what: str, values: Sequence[float], shown: Callable[[float], str]) -> str:
    """Return the distribution of time or memory over programs. Each program counts with its largest run."""
    if len(values) < 2:
        return ""
    least, most, middle = (shown(value) for value in (min(values), max(values), median(values)))
    drawn = plots.histogram(values, f"{what} of {len(values):,} programs, {least} to {most}, median {middle}")
    ends = f"<span>{least}</span><span>median {middle}</span><span>{most}</span>"
    return f"<figure><b>{what}</b>{drawn}<figcaption>{ends}</figcaption></figure>"
