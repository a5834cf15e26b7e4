"""``spoolctl deps export``: write whole environments, with everything that they need, into one signed file."""

from __future__ import annotations

import os
import re
import tempfile
from functools import partial
from pathlib import Path

import click
import msgspec
from rich.console import Console

from spoold.cli import carry, exits, render, warm
from spoold.cli.options import JSON, PIN
from spoold.cli.place import pass_settings
from spoold.config import Settings
from spoold.model import ids
from spoold.model.environments import Carried, Environments
from spoold.model.errors import LeaseLostError, OperatorError
from spoold.model.ids import Entry
from spoold.model.job import Runtime
from spoold.model.states import State
from spoold.nix import carried
from spoold.spool import layout
from spoold.spool.builds import BuildStore

_BUILD = re.compile(r"[0-9a-f]{8,64}")


@click.command(short_help="Write environments into a signed file.")
@click.argument("wanted", nargs=-1, required=True, metavar="BUILD|FILE|DIRECTORY...")
@click.option(
    "--output", "-o", required=True, metavar="FILE", type=click.Path(path_type=Path), help="The file to write."
)
@PIN
@click.option("--without-nixpkgs", "bare", is_flag=True, help="Leave out the trees of the pins, which may be large.")
@JSON
@pass_settings
def command(settings: Settings, *, wanted: tuple[str, ...], output: Path, pin: str, bare: bool, as_json: bool) -> int:
    """Write built environments and everything that they need into one file, for a host without network.

    BUILD is the id of a build, or at least its first 8 digits. A FILE or DIRECTORY is as for `spoolctl deps build`.
    Give that command first for environments that are not built yet. [nix] signing_key names the file of the secret key
    that signs the content. The pins and the runtime are included. For the operator.

    \b
    Examples:
      nix-store --generate-binary-cache-key exam-1 /etc/spoold/export.key /etc/spoold/export.pub
      sudo spoolctl deps export course/shells/ -o exam.spoold
      sudo spoolctl deps export 1f3a9c02 --without-nixpkgs -o one.spoold

    Exit codes: 0 written, 1 it cannot be written.
    """
    layout.check(settings.spool.path)
    if not settings.nix.signing_key:
        raise OperatorError(
            "[nix] signing_key names no file: `nix-store --generate-binary-cache-key NAME SECRET PUBLIC` makes a key. "
            "Hosts that import need the public one"
        )
    builds = BuildStore(settings)
    runtime = builds.runtime.usable()
    if runtime is None:
        raise OperatorError(f"{builds.runtime.path} is not there: start `spoold builder` first")
    found = _carried(builds, runtime, _ids(builds, runtime, wanted, pin, settings.spool.max_files))
    paths = [shell for _, shell in found] + _of_runtime(runtime)
    if not bare:
        pins = set(runtime.nixpkgs.values())
        paths += sorted({each.nixpkgs for each, _ in found} & pins)
    environments = Environments(system=runtime.system, runtime=_of_runtime(runtime), builds=[each for each, _ in found])
    with Console(stderr=True, quiet=as_json).status("copying and signing store paths"):
        size = _write(settings, environments, paths, output)
    if as_json:
        told = {"file": str(output), "size": size, "builds": [each.build_id for each, _ in found]}
        click.echo(msgspec.json.encode(told))
    else:
        click.echo(f"{output}: {len(found)} environments, {render.size(size)}", err=True)
    return exits.OK


def _ids(builds: BuildStore, runtime: Runtime, wanted: tuple[str, ...], pin: str, max_files: int) -> list[str]:
    """Return the ids of the wanted builds, each once."""
    found: list[str] = []
    finished = builds.finished()
    for each in wanted:
        if not os.path.exists(each):
            found.append(_by_beginning(each, finished))
            continue
        named = warm.find([Path(each)], pin, max_files)
        if named.left_out:
            raise OperatorError(f"{named.left_out[0].source}: {named.left_out[0].reason}")
        for shell, sources in named.shells.items():
            path = runtime.nixpkgs.get(shell.nixpkgs)
            if path is None:
                raise OperatorError(f"there is no pin called {shell.nixpkgs!a}; the pins are {sorted(runtime.nixpkgs)}")
            build_id = ids.build_id(shell.expression, path, runtime.system, runtime.nix)
            if build_id not in finished:
                raise OperatorError(f"{warm.names(sources)}: not built; `spoolctl deps build` builds it")
            found.append(build_id)
    return list(dict.fromkeys(found))


def _by_beginning(word: str, finished: list[str]) -> str:
    if not _BUILD.fullmatch(word):
        raise OperatorError(f"{word!a} is no file and no id of a build: give its 64 hex digits, or 8 or more of them")
    found = [each for each in finished if each.startswith(word)]
    if len(found) != 1:
        raise OperatorError(f"{len(found)} builds begin with {word}: give the digits of one")
    return found[0]


def _carried(builds: BuildStore, runtime: Runtime, wanted: list[str]) -> list[tuple[Carried, str]]:
    """Return the builds as the file lists them, each with the store path of its environment."""
    names = {path: name for name, path in sorted(runtime.nixpkgs.items(), reverse=True)}
    found = []
    for build_id in wanted:
        record = builds.result(build_id)
        try:
            filed = builds.read(State.DONE, Entry(build_id, 1))
        except (LeaseLostError, msgspec.DecodeError) as error:
            raise OperatorError(f"build {build_id} cannot be read: {error}") from error
        if record is None or not record.result.shell:
            raise OperatorError(f"build {build_id} failed, so it has no environment to export")
        pin = names.get(filed.nixpkgs, "")
        each = Carried(build_id=build_id, expression=filed.expression, pin=pin, nixpkgs=filed.nixpkgs)
        found.append((each, record.result.shell))
    return found


def _of_runtime(runtime: Runtime) -> list[str]:
    return [path for path in (runtime.bash, runtime.coreutils, runtime.tzdata, runtime.nix) if path]


def _write(settings: Settings, environments: Environments, paths: list[str], output: Path) -> int:
    """Write the file in one step, and return its size. Only its owner may read it, as it has expressions of clients."""
    cache = carried.make(settings.nix, paths)
    part = output.with_name(f".{output.name}.part")
    part.unlink(missing_ok=True)
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file, tempfile.TemporaryDirectory() as scratch:
            carry.pack(file, environments, cache, partial(carried.sign, key=settings.nix.signing_key), Path(scratch))
            file.flush()
            os.fsync(file.fileno())
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
        carried.remove(settings.nix, cache)
    return output.stat().st_size
