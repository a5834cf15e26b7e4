"""``spoolctl schema``: print the JSON Schemas of requests and responses."""

from __future__ import annotations

import json
from typing import get_args

import click

from spoold.cli.options import JSON
from spoold.model.schema import Name, schema


@click.command(short_help="Print the JSON Schema of a request or a response.")
@click.argument("name", type=click.Choice(get_args(Name)), metavar="request|response")
@JSON
def command(name: Name, *, as_json: bool) -> None:
    """Print the JSON Schema (draft 2020-12) of the requests that clients drop, or of the responses that they get.

    Its $id has a number, which changes with the schema. An editor that knows the schema of requests completes them and
    marks errors in them. A client in another language can generate its types from both schemas. The spec,
    spool-layout(5), explains the keys. The output is JSON in any case; --json prints it in one line.

    \b
    Examples:
      spoolctl schema request > request.schema.json
      spoolctl schema response | jq '.properties | keys'

    Exit codes: 0 printed, 2 there is no schema of that name.
    """
    click.echo(json.dumps(schema(name), indent=None if as_json else 2))
