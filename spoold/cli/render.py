"""How things look to a person. Nothing a client or a job wrote reaches the terminal raw."""

from __future__ import annotations

import time

from msgspec import UnsetType
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from spoold.cli.text import printable
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
)

SHOWN_CASES = 100  # in the human view
VERDICTS = {Verdict.ACCEPTED: "bold green", Verdict.SKIPPED: "bold yellow"}  # that are no failure
SHOWN_LINES = 40  # of one stream, in the human view; --json has all


def show_response(console: Console, id_: str, response: Response) -> None:
    """Print a response: the status, a table of the phases, and what they printed."""
    parts: list[Text | Table | Panel] = [Text(f"{id_}: ").append(response.status, style=_colour(response.status))]
    if isinstance(response.reason, str):
        parts.append(Text(printable(response.reason, lines=True)))
    if isinstance(response.waiting_for, WaitingFor):
        build = response.waiting_for
        parts.append(Text(f"waits for build {printable(build.build_id[:12])}, which is {printable(build.state)}"))
        if isinstance(now := build.fetching, Fetching):
            sizes = f"{size(now.bytes)} of {size(now.all_bytes)}"
            parts.append(Text(f"fetched {now.paths} of {now.all_paths} store paths, {sizes}"))
    parts.extend(Text(printable(note)) for note in (response.notes if isinstance(response.notes, list) else ()))
    if isinstance(response.packages, list):
        parts.append(package_table(response.packages, time.time()))
    else:
        parts.append(_phase_table(response))
        parts.extend(_outputs(response))
        # What a build that went well had to say is of use to nobody here; --json has it.
        quiet = response.dependencies.outcome is Outcome.OK
        for name in ("compile", "run") if quiet else ("dependencies", "compile", "run"):
            parts.extend(_streams(name, getattr(response, name)))
        if isinstance(response.cases, list):
            parts.extend(_cases(response.cases, response.summary))
    console.print(Group(*parts))


def _colour(status: Status) -> str:
    if status is Status.COMPLETED:
        return "bold green"
    return "bold red" if status.isupper() and status.endswith(("FAILED", "ERROR", "REJECTED")) else "bold yellow"


def _phase_table(response: Response) -> Table:
    table = Table("phase", "outcome", "exit", "time", "CPU", "memory", box=None, pad_edge=False)
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


def _cases(cases: list[CaseResult], summary: Summary | UnsetType) -> list[Text | Table | Panel]:
    """Return a table of the cases, the output of the first that failed, and what came of all."""
    table = Table("case", "verdict", "points", "time", "memory", "", box=None, pad_edge=False)
    for case in cases[:SHOWN_CASES]:
        difference = str(case.difference) if isinstance(case.difference, Difference) else ""
        table.add_row(
            printable(case.name),
            Text(case.verdict, style=VERDICTS.get(case.verdict, "bold red")),
            f"{case.points:g}",
            seconds(case.run.time),
            size(case.run.memory),
            Text(printable(case.message or difference)),
        )
    parts: list[Text | Table | Panel] = [table]
    if len(cases) > SHOWN_CASES:
        parts.append(Text(f"... {len(cases) - SHOWN_CASES} more cases: see --json"))
    for case in cases[:SHOWN_CASES]:
        parts.extend(_files(case))
    failed = next((case for case in cases if case.verdict not in VERDICTS), None)
    if failed:
        parts.extend(_streams(f"case {printable(failed.name)}", failed.run))
    if isinstance(summary, Summary):
        groups = summary.groups if isinstance(summary.groups, dict) else {}
        for name, score in [*groups.items(), ("", summary)]:
            of = f"group {printable(name)}: " if name else ""
            parts.append(
                Text(
                    f"{of}{score.accepted} of {score.of} accepted, {score.points:g} of {score.of_points:g} points: "
                ).append(score.verdict, style=VERDICTS.get(score.verdict, "bold red"))
            )
    return parts


def _outputs(response: Response) -> list[Text | Table | Panel]:
    """Return a table of the files that came back of the run, and what is to say of all that came back."""
    parts = _files(response)
    if isinstance(response.outputs_tar, OutputsTar):
        parts.append(Text(f"all files: {printable(response.outputs_tar.name)}, beside the response"))
    return parts


def _files(of: Response | CaseResult) -> list[Text | Table | Panel]:
    """Return a table of the files that came back of a run, and which are missing."""
    parts: list[Text | Table | Panel] = []
    of_case = f"case {printable(of.name)}: " if isinstance(of, CaseResult) else ""
    if isinstance(of.outputs, list) and of.outputs:
        table = Table(f"{of_case}file", "mode", "size", box=None, pad_edge=False)
        for file in of.outputs:
            table.add_row(Text(printable(file.name)), printable(file.mode), size(file.size))
        parts.append(table)
    if isinstance(of.outputs_missing, list):
        missing = printable(", ".join(of.outputs_missing))
        parts.append(Text(f"{of_case}required, and did not come back: {missing}"))
    return parts


def _streams(name: str, phase: Phase) -> list[Panel]:
    made = []
    for stream in ("stdout", "stderr"):
        text = getattr(phase, stream)
        if text:
            lines = printable(text, lines=True).splitlines()
            if len(lines) > SHOWN_LINES:
                lines = [*lines[:SHOWN_LINES], f"... {len(lines) - SHOWN_LINES} more lines: see --json"]
            encoding = getattr(phase, f"{stream}_encoding")
            title = f"{name} {stream}" + (" (base64)" if encoding == "base64" else "")
            made.append(Panel(Text("\n".join(lines)), title=title, title_align="left"))
    return made


def package_table(packages: list[Package], now: float) -> Table:
    """Return a table of packages in the dependency cache; ``now`` is seconds since the epoch."""
    table = Table(box=None, pad_edge=False)
    # Names and versions are a client's to choose: they must not push the other columns out.
    table.add_column("package", no_wrap=True, overflow="ellipsis", max_width=20)
    table.add_column("version", no_wrap=True, overflow="ellipsis", max_width=12)
    table.add_column("closure", justify="right", no_wrap=True)
    table.add_column("builds", justify="right", no_wrap=True)
    table.add_column("last used", justify="right", no_wrap=True)
    table.add_column("store path", no_wrap=True, overflow="ellipsis", ratio=1)
    for package in packages:
        table.add_row(
            printable(package.name),
            printable(package.version),
            size(package.closure_size),
            str(len(package.builds)),
            age(now - package.last_used),
            Text(printable(package.path.removeprefix("/nix/store/"))),
        )
    return table


def age(span: float) -> str:
    """Return how long ago something was, in the largest unit that fits."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if span >= length:
            return f"{span / length:.0f} {unit} ago"
    return "just now"


def span(seconds: float | None) -> str:
    """Return how long something has lasted, in the two largest units that fit; "" where there is none."""
    if seconds is None:
        return ""
    whole = int(seconds)
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            return f"{whole // length} {unit} {whole % length // part} {smaller}"
    return f"{whole} s"


def seconds(value: object) -> str:
    """Return a duration as a person reads it; "" where there is none."""
    return f"{value:.3f} s" if isinstance(value, (int, float)) else ""


def size(value: object) -> str:
    """Return a number of bytes as a person reads it; "" where there is none."""
    if not isinstance(value, int):
        return ""
    scaled, unit = float(value), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if scaled < 1024:
            break
        scaled, unit = scaled / 1024, larger
    return f"{scaled:.0f} {unit}" if unit == "B" else f"{scaled:.1f} {unit}"
