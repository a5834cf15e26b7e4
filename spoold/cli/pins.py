"""``spoolctl nixpkgs``: the pins that requests can choose from, in addition to those of the settings."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator

import click
import msgspec
from rich.console import Console
from rich.table import Table

from spoold.cli import exits, render, text
from spoold.cli.options import JSON, TIMEOUT
from spoold.cli.place import pass_settings
from spoold.config import Settings
from spoold.model.errors import OperatorError
from spoold.spool import layout
from spoold.spool.builds import BuildStore
from spoold.spool.pins import PinsAnswer

POLL = 0.1  # seconds between two looks for the builder's answer
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LOCATION = re.compile(r"(/|https?://|file://).+")


@click.group(short_help="Add, list and remove pins of nixpkgs.")
def command() -> None:
    """Add, list and remove pins of nixpkgs: for the operator.

    A request chooses a pin with "nixpkgs": NAME. The pins of the settings file are always there, and these are
    additional.

    \b
    Examples:
      spoolctl nixpkgs list
      spoolctl nixpkgs add 24.11 /srv/nixpkgs-24.11.tar.gz
      spoolctl nixpkgs remove 24.11

    Exit codes: 0 done, 1 it cannot be done, 4 no answer of the builder within --timeout.
    """


@command.command(short_help="Add a pin.")
@click.argument("name", metavar="NAME")
@click.argument("location", metavar="LOCATION")
@TIMEOUT
@JSON
@pass_settings
def add(settings: Settings, *, name: str, location: str, timeout: float, as_json: bool) -> int:
    """Add the nixpkgs at LOCATION under NAME: a directory, a tarball, a URL or a store path.

    It is unpacked once. A pin with the same name is replaced, which changes the ids of all builds made with it.

    \b
    Examples:
      spoolctl nixpkgs add 24.11 /srv/nixpkgs-24.11.tar.gz
      spoolctl nixpkgs add unstable https://example.org/nixpkgs.tar.gz --timeout 3600

    Exit codes: 0 it is provided, 1 it cannot be provided, and all stays as it was; 4 no answer within --timeout.
    """
    layout.check(settings.spool.path)
    builds = BuildStore(settings)
    if not NAME.fullmatch(name):
        raise click.UsageError(
            f"{name!a}: a name has letters, digits, '.', '_' and '-', at most 64, the first a letter or digit"
        )
    if not LOCATION.fullmatch(location):
        raise click.UsageError(f"{location!a}: give an absolute path, or a URL (https://, http://, file://)")
    _refuse_of_settings(settings, name)
    with _changing(builds):
        before = builds.pins.added()
        code = _change(builds, before | {name: location}, timeout, undo=before)
    if code == exits.OK and as_json:
        click.echo(msgspec.json.encode({"name": name, "location": location}))
    elif code == exits.OK:
        click.echo(f"{name}: provided", err=True)
    return code


@command.command(short_help="Remove a pin.")
@click.argument("name", metavar="NAME")
@TIMEOUT
@JSON
@pass_settings
def remove(settings: Settings, *, name: str, timeout: float, as_json: bool) -> int:
    """Remove the pin NAME. Builds made with it are deleted when the cache is collected.

    \b
    Examples:
      spoolctl nixpkgs remove 24.11

    Exit codes: 0 removed, 1 no pin of that name was added, 4 no answer within --timeout.
    """
    layout.check(settings.spool.path)
    builds = BuildStore(settings)
    _refuse_of_settings(settings, name)
    with _changing(builds):
        pins = builds.pins.added()
        if pins.pop(name, None) is None:
            raise OperatorError(f"there is no added pin called {name!a}; see `spoolctl nixpkgs list`")
        code = _change(builds, pins, timeout, undo=None)
    if code == exits.OK and as_json:
        click.echo(msgspec.json.encode({"name": name}))
    return code


@command.command("list", short_help="List the pins.")
@JSON
@pass_settings
def list_(settings: Settings, *, as_json: bool) -> None:
    """List the pins: where they come from, and their store paths once they are provided.

    \b
    Examples:
      spoolctl nixpkgs list --json | jq -r '.pins[].name'

    Exit codes: 0 listed, 1 there is no spool.
    """
    layout.check(settings.spool.path)
    builds = BuildStore(settings)
    runtime = builds.runtime.read()
    provided = runtime.nixpkgs if runtime else {}
    rows = [
        {"name": name, "location": location, "from": source, "path": provided.get(name, "")}
        for source, pins in (("settings", settings.nixpkgs), ("added", builds.pins.added()))
        for name, location in sorted(pins.items())
    ]
    if as_json:
        click.echo(msgspec.json.encode({"pins": rows}))
        return
    table = Table("pin", "from", "location", "store path", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(text.printable(row[key]) for key in ("name", "from", "location", "path")))
    render.console().print(table)


def _refuse_of_settings(settings: Settings, name: str) -> None:
    if name in settings.nixpkgs:
        raise OperatorError(f"{name!a} is a pin of the settings file: change it there, and restart the builder")


@contextlib.contextmanager
def _changing(builds: BuildStore) -> Iterator[None]:
    """Hold the pins for a change. Another change waits until this one has ended."""
    with contextlib.ExitStack() as held:
        with Console(stderr=True).status("waiting for another change of the pins to end"):
            held.enter_context(builds.pins.changing())
        yield


def _change(builds: BuildStore, pins: dict[str, str], timeout: float, *, undo: dict[str, str] | None) -> int:
    """Set the pins and wait until the builder provides them. If it cannot, set ``undo`` instead."""
    builds.pins.set(pins)
    answer = _wait(builds, pins, timeout)
    if answer is None:
        click.echo(f"no answer within {timeout:g} s. The change is made once a builder runs", err=True)
        return exits.TIMED_OUT
    if answer.error:
        if undo is not None:
            builds.pins.set(undo)
        raise OperatorError(answer.error)
    return exits.OK


def _wait(builds: BuildStore, pins: dict[str, str], timeout: float) -> PinsAnswer | None:
    deadline = time.monotonic() + timeout
    with Console(stderr=True).status("waiting for the builder, which may take a while to unpack nixpkgs"):
        while time.monotonic() < deadline:
            answer = builds.pins.answered()
            if answer is not None and answer.pins == pins:
                return answer
            time.sleep(POLL)
    return None
