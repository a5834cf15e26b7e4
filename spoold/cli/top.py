"""``spoolctl top``: show the state of the spool on one screen, again and again.

It reads the directories of the spool and the notes of its workers. It writes nothing, and asks no daemon. Rates come
from the files that the daemons write for Prometheus, where there are any. Ages are by the clock of this machine. A look
at 100,000 entries takes a few tenths of a second, so the pause before the next look grows with the time that it took.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import click
import msgspec
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from spoold.cli import exits, render
from spoold.cli.options import JSON
from spoold.cli.owners import Owner, owners, table
from spoold.cli.place import pass_settings
from spoold.cli.pools import Pilots, pilots, tables
from spoold.cli.text import printable
from spoold.config import Settings
from spoold.host import machine
from spoold.model import ids
from spoold.model.errors import OperatorError
from spoold.model.ids import Kept
from spoold.model.states import Kind, Role, State
from spoold.spool import layout
from spoold.upkeep.depth import Depth, Waiting, depths, holders
from spoold.upkeep.rates import Rates

MOST = 10  # entries that are named: the oldest
REST = 4.0  # the pause between two looks is at least this many times as long as a look


class Aged(msgspec.Struct, frozen=True):
    """An entry, and the seconds since it came to its directory."""

    id: str
    attempt: int | None
    state: str
    seconds: float


class DepthRow(msgspec.Struct, frozen=True):
    """The number of entries in a directory of the spool.

    ``oldest`` is an age in seconds, null for an empty directory.
    """

    state: str
    entries: int
    oldest: float | None


class Worker(msgspec.Struct, frozen=True):
    """A daemon: its processes on this host (null where they cannot be seen), and the entries that it works on."""

    name: str
    processes: list[int] | None
    holds: list[Aged]


class Sample(msgspec.Struct, frozen=True):
    """The spool at a time, in seconds since the epoch.

    ``pilots`` is null where no scaler reports any. ``totals`` are the counts of the daemons since they started: answers
    by status, and files taken in (accepted, refused, ...). ``per_second`` tells how fast these grow. Both are null
    where nothing is measured, or nothing is known yet.
    """

    time: float
    spool: str
    states: list[DepthRow]
    oldest: list[Aged]
    workers: list[Worker]
    owners: list[Owner]
    pilots: Pilots | None
    totals: dict[str, float] | None
    per_second: dict[str, float] | None = None


@click.command(short_help="Show queues and workers, live.")
@click.option("--once", is_flag=True, help="Print one look and end. This is the default if stdout is not a terminal.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="The time between two looks.",
)
@JSON
@pass_settings
def command(settings: Settings, *, once: bool, interval: float, as_json: bool) -> int:
    """Show queues, workers, executors that Slurm starts, owners and rates, for the operator.

    It shows what waits, what is worked on and by whom, what owners used and have, how fast it goes, and what has waited
    longest. The screen is live until ^C. A job that takes more memory than a slot's part counts as several slots. Rates
    need `[metrics] directory` in the settings. --json prints one look.

    \b
    Examples:
      spoolctl top
      spoolctl top --once
      spoolctl top --json | jq '.states[] | select(.state == "new").oldest'
      spoolctl top --json | jq -r '.owners[] | [.name, .slot_seconds, .share] | @tsv'
      spoolctl top --json | jq '.pilots.pools[] | select(.lost > 0).pool'

    Exit codes: 0 shown, 1 there is no spool, or it is closed to this user.
    """
    layout.check(settings.spool.path)
    samples = _samples(settings, interval)
    if as_json:
        click.echo(msgspec.json.encode(next(samples)))
        return exits.OK
    console = render.console()
    if once or not console.is_terminal:
        console.print(_view(next(samples)))
        return exits.OK
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            for sample in samples:
                live.update(_view(sample), refresh=True)
    except KeyboardInterrupt:
        pass
    return exits.OK


def _samples(settings: Settings, interval: float) -> Iterator[Sample]:
    """Yield looks for ever."""
    rates = Rates(settings.metrics.directory, settings.spool.path)
    while True:
        began = time.monotonic()
        yield _look(settings, rates)
        took = time.monotonic() - began
        time.sleep(max(interval, REST * took))


def _look(settings: Settings, rates: Rates) -> Sample:
    now, root = time.time(), settings.spool.path
    found = list(depths(root, MOST))
    if not found:
        raise OperatorError(f"{root} is closed to this user: run it as root, or as the user of the daemons")
    totals, per_second = rates.look()
    entries = [_aged(waiting, depth.state, now) for depth in found for waiting in depth.oldest]
    return Sample(
        time=now,
        spool=root,
        states=[DepthRow(depth.state, depth.number, _oldest(depth, now)) for depth in found],
        oldest=sorted(entries, key=lambda entry: -entry.seconds)[:MOST],
        workers=_workers(root, now),
        owners=owners(root, now),
        pilots=pilots(root, now),
        totals=totals,
        per_second=per_second,
    )


def _oldest(depth: Depth, now: float) -> float | None:
    return max(0.0, now - depth.oldest[0].since) if depth.oldest else None


def _aged(waiting: Waiting, state: str, now: float) -> Aged:
    entry = ids.parse_entry(waiting.name)
    seconds = max(0.0, now - waiting.since)
    if entry is None or state == "incoming":
        name = os.fsencode(waiting.name.removesuffix(".json")).decode(errors="backslashreplace")
        return Aged(name, None, state, seconds)
    return Aged(entry.id, entry.attempt, state, seconds)


def _workers(root: str, now: float) -> list[Worker]:
    """Return the workers on the spool: those that hold a role's lock here, and those that hold entries on any host."""
    private = os.path.join(root, "tmp")
    held = {holder.name: holder.held for holder in holders(root)}
    locks = {name.removesuffix(Kept.LOCK) for name in _names(private) if name.endswith(Kept.LOCK)} - {"requeue"}
    found = []
    for name in sorted(held.keys() | locks):
        state = Kind.BUILD.directory(State.BUILDING) if name == Role.BUILDER else State.RUNNING
        entries = [_aged(waiting, state, now) for waiting in held.get(name, ())]
        lock = os.path.join(private, f"{name}{Kept.LOCK}")
        found.append(Worker(name, machine.lock_holders(lock), entries))
    return found


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except PermissionError:
        return []


# -- for a person


def _view(sample: Sample) -> Group:
    title = Text(f"{printable(sample.spool)}  {time.strftime('%H:%M:%S', time.localtime(sample.time))}", style="bold")
    parts = (
        _states(sample),
        _work(sample),
        *tables(sample.pilots),
        table(sample.owners),
        _longest(sample),
        _flow(sample),
    )
    return Group(title, *(part for each in parts for part in (Text(), each)))


def _states(sample: Sample) -> Table:
    table = Table("state", box=None, pad_edge=False)
    table.add_column("entries", justify="right")
    table.add_column("oldest", justify="right")
    for each in sample.states:
        style = "" if each.entries else "dim"
        table.add_row(each.state, str(each.entries), render.span(each.oldest), style=style)
    return table


def _work(sample: Sample) -> Table:
    table = Table("worker", "process", "works on", box=None, pad_edge=False)
    table.add_column("for", justify="right")
    for worker in sample.workers:
        pids = "?" if worker.processes is None else " ".join(map(str, worker.processes)) or "not here"
        first = (printable(worker.name), Text(pids, style="" if worker.processes else "bold red"))
        for entry in worker.holds[:MOST]:
            table.add_row(*first, _name(entry), render.span(entry.seconds))
            first = ("", Text())
        if len(worker.holds) > MOST:
            table.add_row("", "", f"and {len(worker.holds) - MOST} more", "")
        if not worker.holds:
            table.add_row(*first, "", "")
    return table


def _longest(sample: Sample) -> Table:
    table = Table("oldest", "state", box=None, pad_edge=False)
    table.add_column("for", justify="right")
    for entry in sample.oldest:
        table.add_row(_name(entry), entry.state, render.span(entry.seconds))
    return table


def _name(entry: Aged) -> Text:
    id_ = entry.id[:12] if entry.state.startswith("builds/") else entry.id
    attempt = f" (attempt {entry.attempt})" if entry.attempt and entry.attempt > 1 else ""
    return Text(printable(id_) + attempt, overflow="ellipsis", no_wrap=True)


def _flow(sample: Sample) -> Table | Text:
    if sample.totals is None:
        return Text("no rates: set [metrics] directory in the settings", style="dim")
    table = Table("results", box=None, pad_edge=False)
    table.add_column("so far", justify="right")
    table.add_column("a minute", justify="right")
    for name, total in sorted(sample.totals.items()):
        if total:
            rate = f"{sample.per_second.get(name, 0.0) * 60:.1f}" if sample.per_second else ""
            table.add_row(name, f"{total:.0f}", rate)
    return table
