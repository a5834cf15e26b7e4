"""``spoolctl list``: the submissions that were made from here, with their states.

The ids come from this user's own record, because a spool does not list its submissions. The states come from the spool.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from itertools import islice

import click
import msgspec

from spoold import client
from spoold.cli import completing, exits, render, tables
from spoold.cli.options import JSON
from spoold.cli.place import Place, pass_place
from spoold.cli.record import Entry, Record
from spoold.cli.text import printable
from spoold.client.directory import Directory
from spoold.client.response import read

AT_ONCE = 8  # questions to another host
AGE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>s|m|min|h|d|w)?")
UNITS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}  # seconds
GONE, HIDDEN, ARRIVING = "gone", "not yours", "arriving"
WORDS = {"pending": "queued", "INSTALLING_DEPENDENCIES": "building", "DEPENDENCIES_INSTALLED": "queued"}
GOING = (ARRIVING, "queued", "building", "compiling", "running")
FAILED = ("RUN_FAILED", "COMPILE_FAILED", "DEPENDENCIES_FAILED")
ENDED = ("COMPLETED", *FAILED, "REJECTED", "CANCELLED", "INTERNAL_ERROR")
GROUPS = {"going": GOING, "ended": ENDED, "failed": FAILED}
COLOURS = {"COMPLETED": "green", **dict.fromkeys((*FAILED, "REJECTED", "INTERNAL_ERROR"), "red")}


def _age(_: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Return the seconds that an age on the command line stands for."""
    if value is None:
        return None
    match = AGE.fullmatch(value)
    if match is None:
        raise click.BadParameter(f"{value}: write a number and s, min, h, d or w, such as 90min or 2d", param=parameter)
    return float(match["number"]) * UNITS[match["unit"]]


class _Row(msgspec.Struct, frozen=True, rename={"id": "Submission_id"}):
    """A submission: its id, its state, what it was made from, and its time in seconds since the epoch."""

    id: str
    state: str
    name: str
    submitted: float


@click.command("list", short_help="List the submissions that you made from here.")
@click.argument("prefix", metavar="[PREFIX]", default="", shell_complete=completing.ids)
@click.option(
    "--state",
    "states",
    multiple=True,
    metavar="STATE",
    type=click.Choice([*GROUPS, *GOING, *map(str.lower, ENDED), GONE], case_sensitive=False),
    help=f"Only submissions in this state; may be repeated. going means {', '.join(GOING)}. failed means "
    f"{', '.join(FAILED).lower()}. ended means failed, completed, rejected, cancelled or internal_error. gone means "
    "that the response is no longer kept.",
)
@click.option("--newer", metavar="AGE", callback=_age, help="Only submissions younger than this: 90min, 2d.")
@click.option("--older", metavar="AGE", callback=_age, help="Only submissions older than this: 90min, 2d.")
@click.option(
    "-n",
    "--last",
    metavar="N",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="List at most this many submissions.",
)
@JSON
@pass_place
def listed(
    place: Place,
    *,
    prefix: str,
    states: tuple[str, ...],
    newer: float | None,
    older: float | None,
    last: int,
    as_json: bool,
) -> int:
    """List the submissions that this user made on this host, the newest first, with their states.

    `submit`, `run`, `batch` and `grade` record their submissions to each spool in ~/.local/state/spoold. Submissions of
    other users, and those made in other ways, are not listed, because the spool itself lists them to nobody. PREFIX is
    the beginning of the ids to list. A submission is gone when its response is no longer kept.

    \b
    Examples:
      spoolctl list
      spoolctl list ex3- --state failed --newer 2h
      spoolctl wait $(spoolctl list --state going --json | jq -r '.submissions[].Submission_id')

    Exit codes: 0 listed, even if there are none.
    """
    record, now = Record(place.spool), time.time()
    entries = (
        entry
        for entry in record.entries()
        if entry.id.startswith(prefix)
        and (newer is None or entry.at >= now - newer)
        and (older is None or entry.at <= now - older)
    )
    wanted = {name.lower() for state in states for name in GROUPS.get(state.lower(), (state,))}
    with client.Spool(place.spool) as spool:
        found = (row for row in _rows(spool, entries) if not wanted or row.state.lower() in wanted)
        rows = list(islice(found, last))
    if as_json:
        click.echo(msgspec.json.encode({"submissions": rows}))
    elif rows:
        tables.show([_table(rows, now)])
    else:
        records = "records those that were" if record.can_add() else "cannot be written, so it records none that are"
        click.echo(f"no submissions to list; {printable(record.path)} {records} made from here", err=True)
    return exits.OK


def _rows(spool: client.Spool, entries: Iterable[Entry]) -> Iterator[_Row]:
    """Yield a row for each entry. Ask another host for several at once."""
    if isinstance(spool.transport, Directory):
        yield from (_row(spool, entry) for entry in entries)
        return
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - it loads slowly, and few spools are remote

    source = iter(entries)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while some := list(islice(source, AT_ONCE)):
            yield from pool.map(lambda entry: _row(spool, entry), some)


def _row(spool: client.Spool, entry: Entry) -> _Row:
    return _Row(entry.id, state_of(spool, entry.id), entry.name, entry.at)


def state_of(spool: client.Spool, id_: str) -> str:
    """Return the state of a submission in one word. For one that has ended, this is its status."""
    try:
        data, is_known = spool.transport.look(id_)
        if data is None:
            return ARRIVING if is_known else GONE
        response = read(data)
    except client.AnswerError:
        return HIDDEN
    if response.ended:
        return response.status
    return "building" if response.waiting_for else WORDS.get(response.status, response.status.lower())


def _table(rows: list[_Row], now: float) -> tables.Table:
    table = tables.Table("id", "state", "submitted", "of", right=["submitted"])
    for row in rows:
        state = tables.Text(printable(row.state), COLOURS.get(row.state, ""))
        table.add_row(row.id, state, render.age(max(0.0, now - row.submitted)), printable(row.name))
    return table
