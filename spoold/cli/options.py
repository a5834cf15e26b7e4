"""Options that several commands have."""

from __future__ import annotations

import click

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
TIMEOUT = click.option(
    "--timeout", type=float, default=900.0, show_default=True, metavar="SECONDS", help="How long to wait at most."
)
RAW = click.option(
    "--raw", is_flag=True, help="Write what the program printed to our own output and error, to the byte."
)
