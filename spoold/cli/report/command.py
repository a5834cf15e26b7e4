"""``spoolctl report``: make a page of HTML from responses in files."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

import click
import msgspec

from spoold.cli import exits, render, report
from spoold.cli.options import JSON
from spoold.cli.report.results import FAILED, of
from spoold.client.errors import AnswerError
from spoold.client.response import Response, read
from spoold.model.errors import ClientError

ENDINGS = (".response.json", ".refused.json", ".jsonl", ".json")


class _Line(msgspec.Struct):
    """An item of a file: a response itself, or an object with a program's name and its response."""

    name: str = ""
    id: str = ""
    status: str = ""
    submission_id: str = msgspec.field(name="Submission_id", default="")
    response: msgspec.Raw = msgspec.Raw()


@click.command(short_help="Make a page for a browser from responses in files.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--output",
    "-o",
    default="report.html",
    show_default=True,
    metavar="FILE",
    help="The page to write; - is standard output.",
)
@click.option("--title", default="Report", show_default=True, help="The title of the page.")
@JSON
def command(*, files: tuple[str, ...], output: str, title: str, as_json: bool) -> int:
    """Make one page of HTML from responses in files: verdicts by case, differences, times and memory.

    Failures come first. The page sorts and filters in any browser, and needs neither a server nor the network. Long
    outputs are cut, and the page says by how much. A FILE contains a response as in done/, a JSON array of responses,
    or a response in each line, as --json prints them. An item may also be {"name": ..., "response": {...}}, with null
    where there is none yet. `-` is standard input. The page shows the outputs of programs, so keep it from people who
    may not see them. An existing output file is replaced.

    \b
    Examples:
      spoolctl report done/*.response.json -o report.html
      spoolctl wait ex3-1 ex3-2 ex3-3 --json | spoolctl report - --title 'Exercise 3'

    Exit codes: 0 written, whatever came of the programs; 1 it cannot be written: the text says which FILE is no
    response.
    """
    if as_json and output == "-":
        raise click.UsageError("standard output can have the page or JSON, not both: name a file with --output")
    rows = [row for file in files for row in _rows(file)]
    size = report.write(output, title, rows, made=f"spoolctl report, {time.strftime('%Y-%m-%d %H:%M %Z')}")
    failed = sum(isinstance(row.response, Response) and of(row.response).kind == FAILED for row in rows)
    if as_json:
        click.echo(msgspec.json.encode({"file": output, "size": size, "programs": len(rows), "failed": failed}))
    else:
        click.echo(f"{output}: {len(rows)} programs, {failed} failed, {render.size(size)}", err=True)
    return exits.OK


def _rows(file: str) -> Iterator[report.Row]:
    """Yield the programs in a file. Raises :class:`ClientError` for an item that is no response, and OSError."""
    if file == "-":
        data = sys.stdin.buffer.read()
    else:
        with open(file, "rb") as opened:
            data = opened.read()
    base = os.fsencode(os.path.basename(file)).decode(errors="backslashreplace")
    named = next((base.removesuffix(each) for each in ENDINGS if base.endswith(each)), base)
    parts = _parts(data)
    for number, part in enumerate(parts, 1):
        try:
            yield _row(part, named if len(parts) == 1 and file != "-" else "")
        except (AnswerError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            which = f"{file}, line {number}," if len(parts) > 1 else file
            raise ClientError(f"{which} is no response: {error}. Leave it out, or name a copy from done/") from error


def _parts(data: bytes) -> list[bytes]:
    """Return the JSON items in a file: the whole file, the members of an array, or its lines."""
    try:
        found = msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [line for line in data.splitlines() if line.strip()] or [data]
    if data.lstrip().startswith(b"["):
        return [bytes(each) for each in msgspec.json.decode(found, type=list[msgspec.Raw])]
    return [data]


def _row(data: bytes, named: str) -> report.Row:
    line = msgspec.json.decode(data, type=_Line)
    id_ = line.id or line.submission_id
    given = bytes(line.response)
    if given == b"null":
        return report.Row(line.name or id_, id_, None)
    if given:
        response = read(given)
        return report.Row(line.name or named or id_ or response.id, id_ or response.id, response)
    if not line.status:
        raise AnswerError('it has neither "status" nor "response"')
    return report.Row(line.name or named or id_, id_, read(data))
