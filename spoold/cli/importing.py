"""``spoolctl deps import``: take environments from another host's signed file into the store of this host.

The command puts the file's binary cache where the builder looks before all other caches, and asks for the builds
through the spool. So each expression is evaluated here as usual, only the builder writes to the store, and this host
has its own record of each build.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import click
import msgspec

from spoold import client
from spoold.cli import ahead, carry, exits
from spoold.cli.options import JSON, TIMEOUT
from spoold.cli.place import pass_settings
from spoold.cli.warm import Shell
from spoold.config import Settings
from spoold.host.locks import locked
from spoold.model import ids
from spoold.model.environments import Carried, Environments
from spoold.model.errors import ClientError, OperatorError
from spoold.model.job import Runtime
from spoold.nix import carried, imports
from spoold.spool import layout
from spoold.spool.builds import BuildStore

DIGITS = 32  # digits of the SHA-256 of a file, which name the directory of its import


@click.command("import", short_help="Take environments from a signed file of another host.")
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--keep", is_flag=True, help="Keep the file's contents for later builds, even once all of it is in the store."
)
@TIMEOUT
@JSON
@pass_settings
def command(settings: Settings, *, file: Path, keep: bool, timeout: float, as_json: bool) -> int:
    """Take environments from a FILE of `spoolctl deps export`: for the operator of a host without network.

    Everything in the file has to be signed by keys in [nix] trusted_public_keys. Otherwise nothing is taken. The
    command then asks for the builds through the spool, and the builder takes their parts from the file. If the
    environments were built with a nixpkgs that is no pin of this host, the command says how to add it. If no builder
    runs yet, start one: it finds its runtime in the file. In both cases, give the command once more afterwards.

    \b
    Examples:
      sudo spoolctl deps import exam.spoold
      sudo spoolctl deps import exam.spoold --keep --timeout 3600

    Exit codes: 0 all are there, 1 the file is not valid, or something else has to be done first; 4 not all are there
    within --timeout: the builds go on; 5 a build failed.
    """
    layout.check(settings.spool.path)
    place, environments = _brought(settings, file)
    builds = BuildStore(settings)
    runtime = builds.runtime.usable()
    if runtime is None:
        raise OperatorError(
            f"no builder has provided a runtime yet. {place} has all that it needs: start it, then import again"
        )
    asked = [(each, _shell(each, runtime, place)) for each in environments.builds]
    _forget_failures(builds, runtime, [shell for _, shell in asked])
    with client.Spool(settings.spool.path) as spool:
        requested = [ahead.ask(spool, shell, [Path(each.build_id[:12])]) for each, shell in asked]
        answers = ahead.wait_for(spool, requested, timeout)
    if as_json:
        click.echo(msgspec.json.encode(ahead.told(requested, answers, [])))
    else:
        ahead.show(requested, answers)
    code = ahead.code(requested, answers, [])
    if code == exits.OK and not keep:
        shutil.rmtree(place)
    elif code != exits.OK:
        click.echo(f"the contents of the file stay in {place} until an import succeeds or you remove them", err=True)
    return code


def _brought(settings: Settings, file: Path) -> tuple[Path, Environments]:
    """Check a file and put its binary cache where the builder finds it.

    Return that place and the list of environments.
    """
    place = Path(settings.nix.state).absolute() / imports.DIRECTORY
    if not place.is_dir():
        raise OperatorError(f"{place} is missing: run `spoolctl init`, or start the builder")
    with locked(str(place / ".lock"), exclusive=True), file.open("rb") as content:
        for abandoned in place.glob(".*.part"):
            shutil.rmtree(abandoned)
        digest = hashlib.file_digest(content, "sha256").hexdigest()[:DIGITS]
        part, whole = place / f".{digest}.part", place / digest
        content.seek(0)
        part.mkdir(mode=0o755)
        try:
            environments = carry.unpack(content, part)
            _check(settings, file, part, environments)
            if not whole.is_dir():
                part.rename(whole)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return whole, environments


def _check(settings: Settings, file: Path, cache: Path, environments: Environments) -> None:
    if environments.system != settings.nix.kind:
        raise ClientError(f"{file} has environments for {environments.system}, and this host is {settings.nix.kind}")
    for path in [cache, *cache.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)  # the builder has to read it, whatever the operator's umask is
    signers = ", ".join(sorted(carry.signers(cache))) or "none"
    try:
        carried.check(settings.nix, cache)
    except OperatorError as error:
        ours = ", ".join(key.partition(":")[0] for key in settings.nix.trusted_public_keys) or "none"
        raise OperatorError(
            f"{file}: nothing was imported: {error}\nIt names these keys as its signers: {signers}. "
            f"[nix] trusted_public_keys has: {ours}"
        ) from error


def _shell(wanted: Carried, runtime: Runtime, place: Path) -> Shell:
    """Return the shell of an environment, with the name that its pin has on this host."""
    for name, path in sorted(runtime.nixpkgs.items(), key=lambda pin: pin[0] != wanted.pin):
        if path == wanted.nixpkgs:
            return Shell(wanted.expression, name)
    there = f"called {wanted.pin!a}" if wanted.pin else "no longer a pin"
    raise OperatorError(
        f"build {wanted.build_id[:12]} needs the nixpkgs {wanted.nixpkgs}, which is no pin of this host (on the "
        f"exporting host it was {there}). `spoolctl nixpkgs add NAME {wanted.nixpkgs}` adds it from "
        f"{place} if the export has it. Then import again"
    )


def _forget_failures(builds: BuildStore, runtime: Runtime, shells: list[Shell]) -> None:
    """Forget failures of builds that were tried without the file. They would be the answer for a while."""
    wanted = [
        ids.build_id(each.expression, runtime.nixpkgs[each.nixpkgs], runtime.system, runtime.nix) for each in shells
    ]
    with builds.looking(exclusive=True):
        builds.forget([id_ for id_ in wanted if (record := builds.result(id_)) and not record.result.shell])
