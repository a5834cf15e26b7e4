"""Options that several commands have."""

from __future__ import annotations

import click

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
TIMEOUT = click.option(
    "--timeout", type=float, default=900.0, show_default=True, metavar="SECONDS", help="The longest time to wait."
)
RAW = click.option(
    "--raw", is_flag=True, help="Write the program's output and error to stdout and stderr, byte for byte."
)
PIN = click.option(
    "--nixpkgs",
    "pin",
    default="default",
    show_default=True,
    metavar="NAME",
    help="The pin for shells that name no other.",
)
