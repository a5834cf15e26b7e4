"""The part of ``spoolctl top`` about pools: the executors that Slurm starts, how many are wanted and how many run."""

from __future__ import annotations

import msgspec
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from spoold.cli import render
from spoold.cli.text import printable
from spoold.upkeep.pools import AGAIN, PoolState, noted

COUNTS = ("wanted", "pending", "starting", "running", "lost", "most")


class Pilots(msgspec.Struct, frozen=True):
    """The scaler's last report, and how many seconds ago it was. ``slurm`` tells whether Slurm answered."""

    seconds: float
    slurm: bool
    demand: int
    pools: list[PoolState]


def pilots(root: str, now: float) -> Pilots | None:
    """Return the last report of the scaler of a spool; None where there is none."""
    found = noted(root)
    return (
        Pilots(max(0.0, now - found[1]), *(getattr(found[0], key) for key in ("slurm", "demand", "pools")))
        if found
        else None
    )


def tables(told: Pilots | None) -> list[RenderableType]:
    """Return the tables for a person; an empty list where there is no scaler."""
    if told is None:
        return []
    table = Table("pool", box=None, pad_edge=False)
    for name in COUNTS:
        table.add_column(name, justify="right")
    for each in told.pools:
        style = "bold red" if each.lost else "" if each.wanted or each.running or each.pending else "dim"
        table.add_row(printable(each.pool), *(str(getattr(each, name)) for name in COUNTS), style=style)
    shown: list[RenderableType] = [table]
    if told.seconds > 3 * AGAIN:
        said = f"the scaler reported this {render.span(told.seconds)} ago: check that spoold-scale runs"
        shown.append(Text(said, style="bold red"))
    elif not told.slurm:
        shown.append(Text("Slurm does not answer: pilots continue, and no new ones start", style="bold red"))
    return shown
