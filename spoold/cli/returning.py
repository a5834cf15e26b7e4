"""``spoolctl outputs``: write the files that came back from a submission."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec
from msgspec.structs import replace

from spoold import client
from spoold.cli import completing, exits
from spoold.cli.options import JSON
from spoold.cli.place import Place, pass_place
from spoold.cli.text import printable
from spoold.client import outputs as returned
from spoold.client.response import Case, Response, ReturnedFile
from spoold.model.errors import ClientError


@click.command(short_help="Write the files that a submission returned.")
@click.argument("id_", metavar="ID", shell_complete=completing.ids)
@click.option(
    "-C",
    "--directory",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=os.curdir,
    help="The directory to write to, which is made if it is missing. [default: here]",
)
@click.option("--case", metavar="NAME", help="Write only the files of this case, without a directory for it.")
@click.option("--over", is_flag=True, help="Replace files that are there already.")
@JSON
@pass_place
def outputs(place: Place, *, id_: str, directory: Path, case: str | None, over: bool, as_json: bool) -> int:
    """Write the files that came back from a submission that has ended, and print their names.

    These are the files that the request asked for with `outputs`, or --output. Nothing is written outside of DIR,
    whatever the files are called, and no link in DIR is followed. The files of each case go into a directory with the
    case's name.

    \b
    Examples:
      spoolctl outputs plot-1 -C plots
      spoolctl outputs ex3-ann --case large --over

    Exit codes: 0 written, even if no files came back; 1 the files cannot be fetched or written, or a required one is
    missing.
    """
    with client.Spool(place.spool) as spool:
        response = spool.status(id_)
        if response is None:
            why = "nothing is known of it (yet): there is no submission of that id, or it is still arriving"
            raise ClientError(f"{id_}: {why}")
        if not response.ended:
            raise ClientError(f"{id_} has not ended yet: `spoolctl wait {id_}` waits for it")
        found: dict[str, bytes] = {}
        about: list[ReturnedFile] = []
        for below, files in _files(response, case):
            contents = returned.contents(spool.transport, response, id_, files)
            found |= {below + name: data for name, data in contents.items()}
            about += [replace(file, name=below + file.name) for file in files]
    try:
        written = returned.save(found, about, directory, over=over)
    except client.RequestError as error:
        raise ClientError(f"{error}" if over else f"{error}, or replace the file with --over") from error
    missing = _missing(response, case)
    if as_json:
        click.echo(msgspec.json.encode({"files": written, "missing": missing}))
    else:
        for name in written:
            click.echo(printable(os.path.join(directory, name)))
        if not written:
            click.echo(f"{id_}: no files came back. A request asks for files with `outputs`, or --output", err=True)
        for pattern in missing:
            click.echo(f"{id_}: required, but not returned: {printable(pattern)}", err=True)
    return exits.FAILED if missing else exits.OK


def _files(response: Response, case: str | None) -> list[tuple[str, list[ReturnedFile]]]:
    """Return the files that came back, grouped, each group with the prefix that its names get here."""
    if case is not None or response.cases is None:
        return [("", returned.of_response(response, case))]
    from spoold.model.outputs import directories  # noqa: PLC0415 - few requests have cases

    names = directories(each.name for each in response.cases)
    return [(f"{name}/", each.outputs or []) for name, each in zip(names, response.cases, strict=True)]


def _missing(response: Response, case: str | None) -> list[str]:
    of: list[Response | Case] = [each for each in response.cases or () if case in (None, each.name)]
    return [pattern for each in of or [response] for pattern in each.outputs_missing]
