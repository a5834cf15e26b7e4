"""Commands for the operator: collect the dependency cache, and run a submission once more."""

from __future__ import annotations

import secrets
import time

import click
import msgspec
from rich.console import Console
from rich.table import Table

from spoold.cli import completing, exits, render
from spoold.cli.options import JSON, TIMEOUT
from spoold.cli.place import pass_settings
from spoold.config import Settings
from spoold.model import ids
from spoold.model.collection import Order, Report
from spoold.model.errors import OperatorError
from spoold.spool import layout
from spoold.spool.builds import BuildStore
from spoold.spool.orders import BY_HAND
from spoold.spool.store import Spool
from spoold.upkeep.requeue import requeue as requeue_finished

POLL = 0.1  # seconds between two looks for the report


@click.command(short_help="Delete unused dependencies.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@TIMEOUT
@JSON
@pass_settings
def collect(settings: Settings, *, dry_run: bool, timeout: float, as_json: bool) -> int:
    """Delete dependencies that are unused by the [gc] settings: by age, number, size of the store, free disk.

    The least recently used ones are deleted first. Dependencies that a submission on its way needs are never deleted.
    The builder deletes them. The health daemon also asks it to, every [gc] interval.

    \b
    Examples:
      spoolctl gc --dry-run
      spoolctl gc --json | jq .freed

    Exit codes: 0 done, 1 it failed, 4 no answer within --timeout.
    """
    layout.check(settings.spool.path)
    builds = BuildStore(settings)
    name = f"{BY_HAND}{secrets.token_hex(4)}"
    builds.orders.file(name, Order(dry_run=dry_run))
    report = _wait(builds, name, timeout)
    if report is None:
        click.echo(f"no answer within {timeout:g} s: check that a builder runs", err=True)
        return exits.TIMED_OUT
    builds.orders.forget(name)
    if report.error:
        raise OperatorError(f"the collection failed: {report.error}")
    if as_json:
        click.echo(msgspec.json.encode(report))
    else:
        _show(report)
    return exits.OK


@click.command(short_help="Run a finished submission once more.")
@click.argument("id_", metavar="ID", shell_complete=completing.ids)
@JSON
@pass_settings
def requeue(settings: Settings, *, id_: str, as_json: bool) -> int:
    """Run a finished submission once more, under its id. Its response is withdrawn, and a new one comes.

    Use it for submissions that ended because of this host: INTERNAL_ERROR, or a build that failed for lack of disk
    space. Clients do not need it: they can submit again under another name. A submission on its way cannot be requeued:
    the health daemon puts back jobs whose lease nobody renews.

    \b
    Examples:
      spoolctl requeue alice-ex3

    Exit codes: 0 it runs once more, 1 there is no such submission, or it is not finished.
    """
    layout.check(settings.spool.path)
    if ids.submission_id(f"{id_}.json") is None:
        raise OperatorError(f"{id_!a} cannot be an id")
    role = f"requeue-{secrets.token_hex(4)}"
    requeue_finished(Spool(settings, role), id_)
    click.echo(msgspec.json.encode({"Submission_id": id_}) if as_json else f"{id_} is run once more")
    return exits.OK


def _wait(builds: BuildStore, name: str, timeout: float) -> Report | None:
    deadline = time.monotonic() + timeout
    with Console(stderr=True).status("waiting for the builder"):
        while (report := builds.orders.report(name)) is None and time.monotonic() < deadline:
            time.sleep(POLL)
    return report


def _show(report: Report) -> None:
    console = render.console()
    if report.deleted:
        table = Table("build", "because of", "last used", "own size", box=None, pad_edge=False)
        now = time.time()
        for verdict in report.deleted:
            last_used, own = render.age(now - verdict.last_used), render.size(verdict.own_size)
            table.add_row(verdict.build_id[:12], verdict.why, last_used, own)
        console.print(table)
    done = "would be" if report.dry_run else "were"
    freed, store, free = (render.size(value) for value in (report.freed, report.store_size, report.free))
    console.print(f"{len(report.deleted)} builds, {report.paths} store paths, {freed} {done} deleted")
    if not report.complete:
        console.print("some unused paths were kept, because builds are running: the next collection deletes them")
    console.print(f"the store has {store}, its disk {free} free")
