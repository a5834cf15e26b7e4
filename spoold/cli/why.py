"""``spoolctl deps why``: show which builds and packages keep a store path, and by which chain of references."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import NamedTuple

import click
import msgspec

from spoold.cli import exits, render, text
from spoold.cli.options import JSON
from spoold.cli.place import pass_settings, require_store
from spoold.config import Settings
from spoold.model.errors import NewerFormatError, OperatorError
from spoold.nix.store import LOGICAL
from spoold.nix.usage import BUILDS
from spoold.nix.why import Chain, why
from spoold.spool import layout
from spoold.spool.builds import BuildStore

SHOWN = 10
_NAME = re.compile(r"([0-9a-z]{32}-[0-9A-Za-z+._?=-]+)(?:/.*)?", re.DOTALL)
OTHERS = {"pins": "the pin", "sources": "a pin's source", "runtime": "the runtime's"}


class Keeper(NamedTuple):
    """A root that keeps a path: its chain, and for a build its packages by path and its time of last use."""

    chain: Chain
    packages: Mapping[str, str]
    last_used: float | None


@click.command(short_help="Show what keeps a store path, by which references.")
@click.argument("path", metavar="PATH")
@click.option("--all", "all_", is_flag=True, help=f"Show all builds that need PATH, not only the last {SHOWN} used.")
@JSON
@pass_settings
def command(settings: Settings, *, path: str, all_: bool, as_json: bool) -> int:
    """Show what keeps PATH in the store: builds, their packages, pins and the runtime. For the operator.

    PATH is a store path, or something below one, written as /nix/store/HASH-NAME or as HASH-NAME. For each build a
    shortest chain of references is shown, from its environment to PATH. The next collection deletes a path that nothing
    keeps.

    \b
    Examples:
      sudo spoolctl deps why /nix/store/6rg2jm2ij9g5z8l9q4b6y3kzh1s7a0d4-gcc-13.2.0
      sudo spoolctl deps why 6rg2jm2ij9g5z8l9q4b6y3kzh1s7a0d4-gcc-13.2.0 --json | jq -r '.kept_by[].root'

    Exit codes: 0 shown, 1 PATH is not in the store, or the store cannot be read.
    """
    layout.check(settings.spool.path)
    wanted = _store_path(path, settings)
    require_store(settings)
    found = why(settings.nix, wanted)
    if found.size is None:
        raise OperatorError(f"{wanted} is not in the store of {settings.nix.state}")
    keepers = _keepers(BuildStore(settings), found.chains)
    if as_json:
        click.echo(msgspec.json.encode({"path": wanted, "size": found.size, "kept_by": list(map(_as_json, keepers))}))
        return exits.OK
    click.echo(f"{wanted} ({render.size(found.size)})")
    if not keepers:
        click.echo("nothing keeps it: the next collection deletes it")
    builds = [each for each in keepers if each.chain.root.startswith(f"{BUILDS}/")]
    shown = builds if all_ else builds[:SHOWN]
    for each in [*(each for each in keepers if each not in builds), *shown]:
        _show(each)
    if len(builds) > len(shown):
        click.echo(f"and {len(builds) - len(shown)} more builds; --all shows them")
    return exits.OK


def _store_path(path: str, settings: Settings) -> str:
    """Return the store path that an argument names."""
    for prefix in (f"{os.path.abspath(settings.nix.state)}/nix{LOGICAL}/", f"{LOGICAL}/"):
        path = path.removeprefix(prefix)
    if match := _NAME.fullmatch(path):
        return f"{LOGICAL}/{match[1]}"
    raise click.UsageError(f"{path!a} is no store path: give /nix/store/, 32 letters and digits, '-' and a name")


def _keepers(builds: BuildStore, chains: list[Chain]) -> list[Keeper]:
    """Return the roots with what the Build store knows about them, the most recently used first."""
    uses = builds.uses.last()
    found = []
    for chain in chains:
        kind, _, name = chain.root.partition("/")
        packages = _packages(builds, name) if kind == BUILDS else {}
        found.append(Keeper(chain, packages, uses.get(name) if kind == BUILDS else None))
    return sorted(found, key=lambda each: -(each.last_used or 0.0))


def _packages(builds: BuildStore, build_id: str) -> dict[str, str]:
    try:
        record = builds.result(build_id)
    except NewerFormatError:
        return {}
    return {each.path: f"{each.name} {each.version}".strip() for each in record.result.packages} if record else {}


def _as_json(keeper: Keeper) -> dict[str, object]:
    chain = [{"path": path, "package": keeper.packages.get(path)} for path in keeper.chain.paths]
    return {"root": keeper.chain.root, "last_used": keeper.last_used, "chain": chain}


def _show(keeper: Keeper) -> None:
    kind, _, name = keeper.chain.root.partition("/")
    if kind == BUILDS:
        used = f", last used {render.age(time.time() - keeper.last_used)}" if keeper.last_used else ""
        click.echo(text.printable(f"build {name}{used}"))
    else:
        click.echo(text.printable(f"{OTHERS.get(kind, kind)} {name}"))
    for path in keeper.chain.paths:
        package = f"  (package {keeper.packages[path]})" if path in keeper.packages else ""
        click.echo(text.printable(f"  -> {path.removeprefix(f'{LOGICAL}/')}{package}"))
