"""The results of many programs: a table on screen, a table of comma-separated values, and lines of JSON.

A spreadsheet takes a cell that begins with ``=``, ``+``, ``-`` or ``@`` for a formula. So it would evaluate what a
program printed, or the name of somebody's file. Such a cell gets a leading ``'``, unless it is a plain number, and the
user is told.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click
import msgspec

from spoold.cli import exits, render, writing
from spoold.cli.sweep import Result
from spoold.cli.tables import Table, Text
from spoold.cli.text import printable, readable
from spoold.client.response import COMPLETED, Phase
from spoold.model.errors import OperatorError

STDOUT = writing.STDOUT
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
FORMULA = ("=", "+", "-", "@", "\t")
MOST = 32_000  # characters of a cell; spreadsheets take 32,767
COLUMNS = (
    *("name", "id", "status", "outcome", "exit_code", "signal", "time", "cpu_time", "memory"),
    *("stdout", "stderr", "reason"),
)
SHOWN = 40  # rows on a terminal


def told(result: Result) -> bytes:
    """Return a line of JSON for programs: the name, the id, and the response."""
    response = (
        msgspec.Raw(result.raw.strip()) if result.raw else {"status": result.response.status, "reason": _reason(result)}
    )
    return msgspec.json.encode({"name": shown(result.name), "Submission_id": result.id, "response": response}) + b"\n"


def shown(name: str) -> str:
    """Return a file name as text, also where its bytes are not UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _reason(result: Result) -> str:
    return shown(result.response.reason or "")


def ended(result: Result) -> tuple[str, Phase]:
    """Return the name of the phase in which a program ended, and that phase."""
    response = result.response
    phases = (("dependencies", response.dependencies), ("compile", response.compile))
    return next(
        ((name, phase) for name, phase in phases if phase.outcome not in ("", "ok", "skipped")), ("run", response.run)
    )


def why(result: Result) -> str:
    """Return in one line why a program did not end well; for one that did, the first line that it printed."""
    name, phase = ended(result)
    if result.response.reason:
        return printable(_reason(result))
    text = readable(phase.stderr_data or phase.stdout_data) if name != "run" else readable(phase.stdout_data)
    if result.response.status != COMPLETED and phase.stderr:
        text = readable(phase.stderr_data)
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1 if result.response.status != COMPLETED else 0] if lines else ""


def table(results: Sequence[Result], *, terminal: bool) -> Iterator[str | Table]:
    """Yield the table for a person: all rows where it is piped; on a terminal failures first, and at most ``SHOWN``."""
    rows = sorted(results, key=lambda result: result.response.status == COMPLETED) if terminal else list(results)
    made = Table("program", "status", "exit", "time", "memory", "", right=("time", "memory"))
    for result in rows[:SHOWN] if terminal else rows:
        _, phase = ended(result)
        status = result.response.status
        made.add_row(
            printable(shown(result.name)),
            Text(printable(status), "green" if status == COMPLETED else "bold red"),
            printable(phase.signal) or ("" if phase.exit_code is None else str(phase.exit_code)),
            render.seconds(phase.time),
            render.size(phase.memory),
            why(result),
        )
    yield made
    if terminal and len(rows) > SHOWN:
        yield f"... {len(rows) - SHOWN} more: --table FILE and --json have all"


def summary(results: Sequence[Result], span: float) -> str:
    """Return a line that counts the results by status."""
    counts = Counter(result.response.status for result in results)
    there = sum(result.was_there for result in results)
    said = ", ".join(f"{count} {printable(status)}" for status, count in counts.most_common())
    programs = "1 program" if len(results) == 1 else f"{len(results)} programs"
    return f"{programs}: {said or 'nothing to do'}" + (f"; {there} had been run before" if there else f"; {span:.1f} s")


def code(results: Iterable[Result]) -> int:
    """Return the exit code of all results: the highest of their codes."""
    return max((exits.of(result.response.status, COMPLETED) for result in results), default=exits.OK)


# -- comma-separated values


def row(result: Result) -> list[Any]:
    """Return a row of the table of values, by ``COLUMNS``. Times are seconds, ``memory`` is bytes."""
    _, phase = ended(result)
    return [
        shown(result.name),
        result.id,
        result.response.status,
        phase.outcome,
        phase.exit_code,
        phase.signal,
        phase.time,
        phase.cpu_time,
        phase.memory,
        _cell(phase.stdout_data),
        _cell(phase.stderr_data),
        _reason(result),
    ]


def _cell(data: bytes) -> str:
    text = readable(data)
    return (text if len(text) <= MOST else f"{text[:MOST]}...").removesuffix("\n")


def values(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> tuple[str, int]:
    """Return a table of comma-separated values, and how many of its cells looked like formulas."""
    import csv  # noqa: PLC0415 - few want such a table
    import io  # noqa: PLC0415 - as above

    text, harmless = io.StringIO(), 0
    writer = csv.writer(text, lineterminator="\n")
    for each in (columns, *rows):
        cells = [printable(cell, lines=True) if isinstance(cell, str) else cell for cell in each]
        made = [_without_formula(cell) if isinstance(cell, str) else cell for cell in cells]
        harmless += sum(one is not another for one, another in zip(cells, made, strict=True))
        writer.writerow(made)
    return text.getvalue(), harmless


def _without_formula(cell: str) -> str:
    if not cell.startswith(FORMULA) or NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}"


def write_values(path: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table of comma-separated values, and say if cells were changed."""
    text, harmless = values(columns, rows)
    write(path, text.encode(errors="backslashreplace"))
    if harmless:
        click.echo(
            f"{printable(path)}: {harmless} cells look like spreadsheet formulas, so a ' was put before them",
            err=True,
        )


def write(path: str, data: bytes) -> None:
    """Write a file, whole or not at all. ``-`` is standard output. Raises :class:`OperatorError`."""
    try:
        writing.write(path, data)
    except OSError as error:
        raise OperatorError(f"{path} cannot be written: {error.strerror}") from error


def require_writable(*paths: str | None) -> None:
    """Raise :class:`OperatorError` if a file cannot be written. Called before the run, which may take an hour."""
    for path in paths:
        if path is None or path == STDOUT:
            continue
        place = path if os.path.exists(path) else os.path.dirname(os.path.abspath(path))
        if os.path.isdir(path) or not os.access(place, os.W_OK):
            why = "it is a directory" if os.path.isdir(path) else "you may not write there"
            raise OperatorError(f"{path} cannot be written: {why if os.path.exists(place) else 'no such directory'}")
