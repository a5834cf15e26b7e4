"""``spoolctl status``. This module imports little, because people and scripts call the command often."""

from __future__ import annotations

import contextlib
import sys

import click
import msgspec

from spoold.cli import completing, exits, reading, render, text
from spoold.cli.options import JSON, RAW
from spoold.cli.place import Place, pass_place
from spoold.client import names
from spoold.client.address import connect
from spoold.model.errors import ClientError
from spoold.model.response import Response


@click.command(
    short_help="Show a response, or how far a submission has come.",
    context_settings={"ignore_unknown_options": True},  # a refused file may be called -x.json
)
@click.argument("id_", metavar="ID", shell_complete=completing.ids)
@RAW
@JSON
@pass_place
def status(place: Place, *, id_: str, raw: bool, as_json: bool) -> int:
    """Show a submission's response, or how far it is. ID may be the name of the dropped file, also a refused one.

    \b
    Examples:
      spoolctl status alice-ex3
      spoolctl status alice-ex3 --raw >output
      spoolctl status alice-ex3 --json | jq -r .run.exit_code
      spoolctl status 'homework (1).json'

    Exit codes: 0 shown, whatever came of it; 1 nothing is known of it (yet), or it is another user's.
    """
    transport = connect(place.spool)
    with contextlib.closing(transport):
        here = reading.root(transport)
        response = reading.look(transport, id_)
        if response is None and (asked := _id_of_file(id_)) and (response := reading.look(transport, asked)):
            id_ = asked
    if response is None:
        from spoold.cli import misnaming  # noqa: PLC0415 - as in reading

        if id_.startswith("--"):  # more likely a misspelt option than a file of that name
            raise click.UsageError(f"there is no option {misnaming.shown(id_)}, nor a submission of that name")
        raise ClientError(f"'{misnaming.shown(id_)}': {misnaming.why_unknown(here, id_)}")
    show(id_, response, as_json=as_json, raw=raw)
    if here and names.is_id(id_):
        for said in (reading.doubt(here, id_), reading.idle_cancel(here, id_)):
            if said:
                click.echo(said, err=True)
    return exits.OK


def _id_of_file(name: str) -> str | None:
    """Return the id for which a file of that name asks, where it is another: of ``hw.json``, or ``hw@WORD``."""
    from spoold.model import ids  # noqa: PLC0415 - few people name the file

    return ids.submission_id(name) or ids.submission_id(f"{name}.json")


def show(id_: str, response: Response, *, as_json: bool, raw: bool) -> None:
    """Show a response: as JSON for programs, or the exact output of the program, or all of it for a person."""
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode(response) + b"\n")
        sys.stdout.flush()
    elif raw:
        render.show_raw(response)
    else:
        render.show_response(text.printable(id_), response)
