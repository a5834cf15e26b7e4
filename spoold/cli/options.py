"""Options that several commands have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click import Context, Parameter


class Seconds(click.types.FloatParamType):
    """A time to wait, in seconds. Any number would do for click, also one that is no time."""

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> float:
        """Return the time."""
        seconds = float(super().convert(value, param, ctx))
        if not seconds >= 0:  # so nan is refused too
            self.fail(f"{value} is no time: write a number of seconds, 0 or more", param, ctx)
        return seconds


SECONDS = Seconds()
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
TIMEOUT = click.option(
    "--timeout", type=SECONDS, default=900.0, show_default=True, metavar="SECONDS", help="The longest time to wait."
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
