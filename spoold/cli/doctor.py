"""``spoolctl doctor``: tell whether this host is fit to run strangers' programs, and if not, what mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spoold.cli import exits, render
from spoold.cli.options import JSON
from spoold.cli.place import pass_settings
from spoold.cli.text import printable
from spoold.config import Settings
from spoold.doctor import budget, installation, nix, sandbox, slurm, spool, stores
from spoold.model.errors import SpooldError
from spoold.model.findings import Finding, Level
from spoold.model.job import Runtime
from spoold.spool.builds import BuildStore

COLOURS = {
    Level.FINE: "green",
    Level.NOTE: "cyan",
    Level.UNKNOWN: "magenta",
    Level.WARNING: "yellow",
    Level.REFUSED: "bold red",
}


@click.command(short_help="Check that this host can run strangers' programs safely.")
@click.option("--strict", is_flag=True, help="Exit with 1 also for warnings and for checks that could not be made.")
@JSON
@pass_settings
def command(settings: Settings, *, strict: bool, as_json: bool) -> int:
    """Tell whether this host can run strangers' programs safely, and what to mend if not.

    The daemons need not run: this command tries out by itself what they need (containers, Nix, its sandbox). As root it
    sees everything. Otherwise it says what it could not look at.

    \b
    Examples:
      sudo spoolctl doctor
      spoolctl doctor --strict --json | jq '.findings[] | select(.level == "refused")'

    Exit codes: 0 nothing is refused (there may be warnings), 1 something is refused: do not use spoold until it is
    mended.
    """
    found = list(_examine(settings, quiet=as_json))
    if as_json:
        click.echo(msgspec.json.encode({"findings": [finding for _, finding in found]}))
    else:
        _show(found)
    bad = {Level.REFUSED} | ({Level.WARNING, Level.UNKNOWN} if strict else set())
    return exits.FAILED if any(finding.level in bad for _, finding in found) else exits.OK


def _examine(settings: Settings, *, quiet: bool) -> Iterator[tuple[str, Finding]]:
    runtime = _runtime(settings)
    rooms: dict[str, Callable[[], Iterator[Finding]]] = {
        "Spool": lambda: spool.examine(settings),
        "Accounts": lambda: installation.examine(settings),
        "Sandbox": lambda: sandbox.examine(settings, runtime),
        "Memory": lambda: budget.examine(settings),
        "Nix": lambda: nix.examine(settings, runtime),
        "Slurm": lambda: slurm.examine(settings),
        "Store": lambda: stores.examine(settings, runtime),
    }
    console = Console(stderr=True, quiet=quiet)
    for room, look in rooms.items():
        with console.status(f"checking {room}"):
            try:
                for finding in look():
                    yield room, finding
            except (SpooldError, OSError) as error:
                remedy = "run the doctor as root" if isinstance(error, PermissionError) else ""
                yield room, Finding(Level.UNKNOWN, room, f"the check ended early: {error}", remedy)


def _runtime(settings: Settings) -> Runtime | None:
    try:
        return BuildStore(settings).runtime.read()
    except (OSError, msgspec.DecodeError, SpooldError):
        return None


def _show(found: list[tuple[str, Finding]]) -> None:
    console = render.console()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    before = ""
    for room, finding in found:
        text = Text(printable(finding.what), style="bold").append(f": {printable(finding.detail)}", style="not bold")
        if finding.remedy:
            text.append(f"\n→ {printable(finding.remedy, lines=True)}", style="not bold italic")
        table.add_row(room if room != before else "", Text(finding.level, style=COLOURS[finding.level]), text)
        before = room
    console.print(table)
    counts = {level: sum(finding.level is level for _, finding in found) for level in Level}
    console.print(
        f"{counts[Level.REFUSED]} refused, {counts[Level.WARNING]} warnings, {counts[Level.UNKNOWN]} not looked at"
    )
