"""The part of ``spoolctl top`` about pools: executors that Slurm starts, wanted and there."""

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
    """What the scaler told last, and how many seconds ago; ``slurm`` is whether that answered."""

    seconds: float
    slurm: bool
    demand: int
    pools: list[PoolState]


def pilots(root: str, now: float) -> Pilots | None:
    """Return what the scaler of a spool told, None where there is none that did."""
    found = noted(root)
    return (
        Pilots(max(0.0, now - found[1]), *(getattr(found[0], key) for key in ("slurm", "demand", "pools")))
        if found
        else None
    )


def tables(told: Pilots | None) -> list[RenderableType]:
    """Return what a person is shown; nothing where there is no scaler."""
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
        shown.append(Text(f"so the scaler said {render.span(told.seconds)} ago: see spoold-scale", style="bold red"))
    elif not told.slurm:
        shown.append(Text("Slurm does not answer: pilots work on, and none are started", style="bold red"))
    return shown
