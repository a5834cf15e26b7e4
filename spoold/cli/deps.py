"""``spoolctl deps``: what is in the dependency cache, and building ahead."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from spoold import client
from spoold.cli import exits, reading, render, tables, text
from spoold.cli.options import JSON, TIMEOUT
from spoold.cli.place import Place, pass_settings
from spoold.config import Settings
from spoold.model import ids
from spoold.model.dropped import MAX_EXPRESSION
from spoold.model.errors import ClientError, NewerFormatError, OperatorError
from spoold.model.response import Package, Status
from spoold.model.submission import Dependencies
from spoold.nix.verify import verify as verified
from spoold.spool import layout
from spoold.spool.builds import BuildRecord, BuildStore

POLL = 0.1  # seconds between two looks at the builds that are waited for


@click.group(invoke_without_command=True, short_help="List the packages in the dependency cache.")
@click.option("--local", is_flag=True, help="Read the Build store instead of asking an executor: for the operator.")
@TIMEOUT
@JSON
@click.pass_context
def command(context: click.Context, local: bool, timeout: float, as_json: bool) -> int | None:
    """List the packages in the dependency cache: those of builds you used, for the operator all.

    The question goes through the spool like any submission, and an executor answers it.

    \b
    Examples:
      spoolctl deps
      spoolctl deps --local --json | jq -r '.packages[].name'

    Exit codes: 0 listed, 1 it cannot be asked, 4 no answer within --timeout.
    """
    if context.invoked_subcommand is not None:
        return None
    place: Place = context.obj
    if local:
        settings = place.settings
        layout.check(settings.spool.path)
        newer: list[NewerFormatError] = []
        _show(BuildStore(settings).packages(None, newer.append), as_json=as_json)
        if newer:
            click.echo(f"builds of a newer version of spoold are not listed: {len(newer)}", err=True)
        return exits.OK
    with client.Spool(place.spool) as spool:
        asked = spool.submit(b'{"kind": "list-dependencies"}\n', stem="deps")
        try:
            spool.wait(asked, timeout)
        except client.TimedOutError:
            return exits.timed_out(asked.id, timeout)
    response = reading.decoded(asked.raw, asked.id)
    if response.status is not Status.COMPLETED or not isinstance(response.packages, list):
        raise ClientError(f"{asked.id}: {response.status}: {response.reason or 'no packages in the response'}")
    _show(response.packages, as_json=as_json)
    return exits.OK


def _show(packages: list[Package], *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode({"packages": packages}))
    elif packages:
        tables.show([render.package_table(packages, time.time())])
    else:
        click.echo("the cache has no packages of builds that you used", err=True)


@command.command(short_help="Is what the cache holds still what was built?")
@JSON
@pass_settings
def verify(settings: Settings, *, as_json: bool) -> int:
    """Hash every path of the Nix store, and compare it with what was registered when it was built: for the operator.

    A path that was changed since then is named in no log. Builds of earlier versions, which made no use of the group
    spoold-build, could do that: so run this once after an upgrade. It reads the whole store. Builds and jobs go on
    meanwhile.

    \b
    Examples:
      sudo spoolctl deps verify
      sudo spoolctl deps verify --json | jq -r '.damaged[].path'

    Exit codes: 0 all is as it was built, 1 something is not: do what is said then.
    """
    with Console(stderr=True, quiet=as_json).status("hashing all that is in the store"):
        found = verified(settings.nix)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        for damaged in found.damaged:
            click.echo(f"{damaged.path}: {damaged.what}")
        click.echo(f"{found.paths} paths, {len(found.damaged)} of them damaged", err=True)
    if not found.damaged:
        return exits.OK
    click.echo(
        "do not trust what ran with these. The store is a cache: stop the builder, remove "
        f"{settings.nix.state}/nix, run `spoolctl init`, and start it again; all is built anew",
        err=True,
    )
    return exits.FAILED


@command.command(short_help="Build shells ahead.")
@click.argument("sources", nargs=-1, required=True, metavar="FILE|DIRECTORY...", type=click.Path(path_type=Path))
@click.option("--nixpkgs", "pin", default="default", show_default=True, metavar="NAME", help="The pin to build with.")
@TIMEOUT
@JSON
@pass_settings
def build(settings: Settings, *, sources: tuple[Path, ...], pin: str, timeout: float, as_json: bool) -> int:
    """Build shells ahead, so that the first submission that needs one need not wait: for the operator.

    A FILE is a shell expression, as cutor.nix is; of a DIRECTORY it is every *.nix in it. A builder must be running.

    \b
    Examples:
      spoolctl deps build course/shells/
      spoolctl deps build numpy.nix --nixpkgs 24.11 --timeout 3600

    Exit codes: 0 all are built, 1 one failed, 4 not all within --timeout: they go on.
    """
    layout.check(settings.spool.path)
    builds = BuildStore(settings)
    wanted = {path: _request(builds, path, pin) for path in _expressions(sources)}
    records = _wait(builds, set(wanted.values()), timeout)
    rows = [(path, records.get(build_id)) for path, build_id in wanted.items()]
    if as_json:
        phases = [{"file": str(path), "build_id": wanted[path], "result": row and row.result} for path, row in rows]
        click.echo(msgspec.json.encode({"builds": phases}))
    else:
        _report(rows)
    if any(record is None for _, record in rows):
        return exits.TIMED_OUT
    return exits.OK if all(record and record.result.shell for _, record in rows) else exits.FAILED


def _expressions(sources: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for source in sources:
        if not source.exists():
            raise click.UsageError(f"{source} does not exist")
        found.extend(sorted(source.glob("*.nix")) if source.is_dir() else [source])
    if not found:
        raise click.UsageError("there is no *.nix file in it")
    return found


def _request(builds: BuildStore, path: Path, pin: str) -> str:
    """File the build of an expression unless it is there or on its way; return its id."""
    runtime = builds.runtime.usable()
    if runtime is None:
        raise OperatorError(f"{builds.runtime.path} is not there: start `spoold builder` first")
    if pin not in runtime.nixpkgs:
        raise OperatorError(f"there is no pin called {pin!a}; there are {sorted(runtime.nixpkgs)}")
    try:
        expression = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ClientError(f"{path}: not UTF-8 text") from error
    if len(expression) > MAX_EXPRESSION:
        raise ClientError(f"{path}: more than {MAX_EXPRESSION} characters")
    build_id = ids.build_id(expression, runtime.nixpkgs[pin], runtime.system, runtime.nix)
    if builds.look(build_id) == "missing":
        wanted = Dependencies(build_id=build_id, expression=expression, nixpkgs=runtime.nixpkgs[pin])
        builds.request(wanted)
    builds.uses.note(build_id, os.getuid())
    return build_id


def _wait(builds: BuildStore, wanted: set[str], timeout: float) -> dict[str, BuildRecord]:
    """Return the records of the builds that ended in time, showing how many have."""
    deadline = time.monotonic() + timeout
    records: dict[str, BuildRecord] = {}
    columns = (TextColumn("building"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(wanted))
        while True:
            for build_id in wanted - records.keys():
                if record := builds.result(build_id):
                    records[build_id] = record
            progress.update(task, completed=len(records))
            if len(records) == len(wanted) or time.monotonic() >= deadline:
                return records
            time.sleep(POLL)


def _report(rows: list[tuple[Path, BuildRecord | None]]) -> None:
    table = tables.Table("shell", "outcome", "time")
    for path, record in rows:
        phase = record.result.phase if record else None
        outcome = str(phase.outcome) if phase else "not yet"
        table.add_row(text.printable(str(path)), outcome, render.seconds(phase.time) if phase else "")
    failed = [(path, record) for path, record in rows if record and not record.result.shell]
    said = (
        (f"\n{text.printable(str(path))}:", text.printable(each.result.phase.stderr, lines=True))
        for path, each in failed
    )
    tables.show([table, *(line for lines in said for line in lines)])
