"""``spoolctl deps``: list the packages in the dependency cache."""

from __future__ import annotations

import time

import click
import msgspec
from rich.console import Console

from spoold import client
from spoold.cli import ahead, exits, exporting, importing, reading, render, tables, why
from spoold.cli.options import JSON, TIMEOUT
from spoold.cli.place import Place, pass_settings, require_store
from spoold.config import Settings
from spoold.model.errors import ClientError, NewerFormatError
from spoold.model.response import Package, Status
from spoold.nix.verify import verify as verified
from spoold.spool import layout
from spoold.spool.builds import BuildStore


@click.group(invoke_without_command=True, short_help="List the packages in the dependency cache.")
@click.option(
    "--local", is_flag=True, help="Read the Build store instead of asking an executor. This is for the operator."
)
@TIMEOUT
@JSON
@click.pass_context
def command(context: click.Context, local: bool, timeout: float, as_json: bool) -> int | None:
    """List the packages in the dependency cache: those of builds that you used. The operator gets all.

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
            click.echo(f"not listed: {len(newer)} builds of a newer version of spoold", err=True)
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


@command.command(short_help="Check that the cache still holds what was built.")
@JSON
@pass_settings
def verify(settings: Settings, *, as_json: bool) -> int:
    """Hash every path of the Nix store, and compare it with the hash registered when it was built: for the operator.

    No log names a path that was changed since then. Builds of earlier versions, which did not use the group
    spoold-build, could change paths. So run this once after an upgrade. It reads the whole store. Builds and jobs go on
    meanwhile.

    \b
    Examples:
      sudo spoolctl deps verify
      sudo spoolctl deps verify --json | jq -r '.damaged[].path'

    Exit codes: 0 every path is as it was built, 1 a path is not: do what the message says.
    """
    require_store(settings)
    with Console(stderr=True, quiet=as_json).status("hashing everything in the store"):
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
        "do not trust results of jobs that used these. The store is only a cache. Stop the builder, remove "
        f"{settings.nix.state}/nix, run `spoolctl init`, and start the builder: it builds everything again",
        err=True,
    )
    return exits.FAILED


command.add_command(ahead.build, "build")
command.add_command(why.command, "why")
command.add_command(exporting.command, "export")
command.add_command(importing.command, "import")
