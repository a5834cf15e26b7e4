"""How responses look to a person. Nothing that a client or a job wrote reaches the terminal raw."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import UnsetType

from spoold.cli import tables
from spoold.cli.tables import Table, Text
from spoold.cli.text import printable, readable
from spoold.model.compare.excerpts import Difference
from spoold.model.response import (
    CaseResult,
    Fetching,
    Outcome,
    OutputsTar,
    Package,
    Phase,
    Response,
    Status,
    Summary,
    Verdict,
    WaitingFor,
    decode_stream,
)
from spoold.model.spans import span as span  # noqa: PLC0414 - for importers, beside the other formats

if TYPE_CHECKING:
    from rich.console import Console

SHOWN_CASES = 100  # on a terminal
VERDICTS = {Verdict.ACCEPTED: "bold green", Verdict.SKIPPED: "bold yellow"}  # verdicts that are no failure
SHOWN_LINES = 40  # of one stream, on a terminal
NO_LIMIT = 1 << 62
Part = str | Table


def show_response(id_: str, response: Response) -> None:
    """Print a response: status, table of phases, and output. Where it is piped, nothing is cut."""
    tables.show(parts(id_, response, cut=sys.stdout.isatty()))


def parts(id_: str, response: Response, *, cut: bool) -> Iterator[Part]:
    """Yield the parts of a response. ``cut`` shortens long parts to their beginning."""
    yield Text(f"{id_}: {response.status}", _colour(response.status))
    if isinstance(response.reason, str):
        yield printable(response.reason, lines=True)
    if isinstance(response.waiting_for, WaitingFor):
        build = response.waiting_for
        yield f"waits for build {printable(build.build_id[:12])}, which is {printable(build.state)}"
        if isinstance(now := build.fetching, Fetching):
            sizes = f"{size(now.bytes)} of {size(now.all_bytes)}"
            yield f"fetched {now.paths} of {now.all_paths} store paths, {sizes}"
    yield from (printable(note) for note in (response.notes if isinstance(response.notes, list) else ()))
    if isinstance(response.packages, list):
        yield package_table(response.packages, time.time())
        return
    if _has_run(response):
        yield _phase_table(response)
    yield from _outputs(response)
    # The output of a successful build is not shown. --json has it.
    quiet = response.dependencies.outcome is Outcome.OK
    lines = SHOWN_LINES if cut else NO_LIMIT
    for name in ("compile", "run") if quiet else ("dependencies", "compile", "run"):
        yield from _streams(name, getattr(response, name), lines)
    if isinstance(response.cases, list):
        yield from _cases(response.cases, response.summary, SHOWN_CASES if cut else NO_LIMIT, lines)


def _has_run(response: Response) -> bool:
    """Tell whether any phase was run. A table for a refused or waiting submission would have empty rows only."""
    phases = (response.dependencies, response.compile, response.run)
    return any(isinstance(phase.time, float | int) for phase in phases)


def _colour(status: Status) -> str:
    if status is Status.COMPLETED:
        return "bold green"
    return "bold red" if status.isupper() and status.endswith(("FAILED", "ERROR", "REJECTED")) else "bold yellow"


def _phase_table(response: Response) -> Table:
    table = Table("phase", "outcome", "exit", "time", "CPU", "memory")
    for name in ("dependencies", "compile", "run"):
        phase: Phase = getattr(response, name)
        table.add_row(
            name,
            phase.outcome if isinstance(phase.outcome, Outcome) else "",
            printable(phase.signal) or (str(phase.exit_code) if isinstance(phase.exit_code, int) else ""),
            "cached" if phase.cached is True else seconds(phase.time),
            seconds(phase.cpu_time),
            size(phase.memory),
        )
    return table


def _cases(cases: list[CaseResult], summary: Summary | UnsetType, most: int, lines: int) -> Iterator[Part]:
    """Yield a table of the cases, the output of the first case that failed, and the scores."""
    table = Table("case", "verdict", "points", "time", "memory", "")
    for case in cases[:most]:
        difference = str(case.difference) if isinstance(case.difference, Difference) else ""
        table.add_row(
            printable(case.name),
            Text(case.verdict, VERDICTS.get(case.verdict, "bold red")),
            f"{case.points:g}",
            seconds(case.run.time),
            size(case.run.memory),
            printable(case.message or difference),
        )
    yield table
    if len(cases) > most:
        yield f"... {len(cases) - most} more cases: see --json"
    for case in cases[:most]:
        yield from _files(case)
    failed = next((case for case in cases if case.verdict not in VERDICTS), None)
    if failed:
        if isinstance(failed.interaction, str):
            yield from _listed(
                f"case {printable(failed.name)} talk",
                failed.interaction.encode(errors="backslashreplace"),
                lines,
                "--json",
            )
        yield from _streams(f"case {printable(failed.name)}", failed.run, lines)
    if isinstance(summary, Summary):
        groups = summary.groups if isinstance(summary.groups, dict) else {}
        for name, score in [*groups.items(), ("", summary)]:
            of = f"group {printable(name)}: " if name else ""
            told = f"{score.accepted} of {score.of} accepted, {score.points:g} of {score.of_points:g} points"
            yield Text(f"{of}{told}: {score.verdict}", VERDICTS.get(score.verdict, "bold red"))


def _outputs(response: Response) -> Iterator[Part]:
    """Yield a table of the files that the run returned, and a line about the tar with all returned files."""
    yield from _files(response)
    if isinstance(response.outputs_tar, OutputsTar):
        yield f"all files: {printable(response.outputs_tar.name)}, beside the response"


def _files(of: Response | CaseResult) -> Iterator[Part]:
    """Yield a table of the files that a run returned, and a line about required ones that are missing."""
    of_case = f"case {printable(of.name)}: " if isinstance(of, CaseResult) else ""
    if isinstance(of.outputs, list) and of.outputs:
        table = Table(f"{of_case}file", "mode", "size")
        for file in of.outputs:
            table.add_row(printable(file.name), printable(file.mode), size(file.size))
        yield table
    if isinstance(of.outputs_missing, list):
        yield f"{of_case}required, but not returned: {printable(', '.join(of.outputs_missing))}"


def _streams(name: str, phase: Phase, most: int) -> Iterator[Part]:
    for stream in ("stdout", "stderr"):
        if getattr(phase, stream):
            yield from _listed(f"{name} {stream}", _data(phase, stream), most, "--raw or --json")


def _listed(title: str, data: bytes, most: int, where: str) -> Iterator[Part]:
    """Yield a title and the first ``most`` lines of a text. ``where`` are the options that show the rest."""
    yield Text(f"{title}:", "bold")
    lines = readable(data).splitlines()
    yield from lines[:most]
    if len(lines) > most:
        yield Text(f"... {len(lines) - most} more lines: see {where}", "dim")


def _data(phase: Phase, stream: str) -> bytes:
    text, encoding = getattr(phase, stream), getattr(phase, f"{stream}_encoding")
    try:
        return decode_stream(text, encoding)
    except ValueError:  # the owner of the response may have changed it
        return str(text).encode()


def show_raw(response: Response) -> None:
    """Write the exact output of the program, or of all its cases, to our own standard output and error.

    If an earlier phase failed, its output goes to standard error.
    """
    runs = [case.run for case in response.cases] if isinstance(response.cases, list) else [response.run]
    failed = (response.dependencies, response.compile)
    for phase in (each for each in failed if each.outcome not in (Outcome.OK, Outcome.SKIPPED)):
        sys.stderr.buffer.write(_data(phase, "stdout") + _data(phase, "stderr"))
    for run in runs:
        sys.stdout.buffer.write(_data(run, "stdout"))
        sys.stderr.buffer.write(_data(run, "stderr"))
    sys.stdout.flush()
    sys.stderr.flush()


def console() -> Console:
    """Return a rich console, for changing screens and folded tables. It does not fold piped output."""
    from rich.console import Console  # noqa: PLC0415 - it takes longer to import than all else

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 10_000)


def package_table(packages: list[Package], now: float) -> Table:
    """Return a table of packages in the dependency cache. ``now`` is seconds since the epoch."""
    table = Table(
        "package", "version", "closure", "builds", "last used", "store path", right=("closure", "builds", "last used")
    )
    for package in packages:
        table.add_row(
            printable(package.name),
            printable(package.version),
            size(package.closure_size),
            str(len(package.builds)),
            age(now - package.last_used),
            printable(package.path.removeprefix("/nix/store/")),
        )
    return table


def age(span: float) -> str:
    """Return how long ago something was, in the largest unit that fits."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if span >= length:
            return f"{span / length:.0f} {unit} ago"
    return "just now"


def seconds(value: object) -> str:
    """Return a duration for a person; "" where there is none."""
    return f"{value:.3f} s" if isinstance(value, (int, float)) else ""


def size(value: object) -> str:
    """Return a number of bytes for a person; "" where there is none."""
    if not isinstance(value, int):
        return ""
    scaled, unit = float(value), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if scaled < 1024:
            break
        scaled, unit = scaled / 1024, larger
    return f"{scaled:.0f} {unit}" if unit == "B" else f"{scaled:.1f} {unit}"
