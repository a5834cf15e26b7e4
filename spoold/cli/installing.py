"""``spoolctl init`` and ``spoolctl config``: the first commands that an installation needs."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from spoold.cli import defaults, migration
from spoold.cli.options import JSON
from spoold.cli.place import Place, pass_place, pass_settings
from spoold.config import Settings
from spoold.config.file import file_in_use, former_names
from spoold.host.persons import weights
from spoold.model.errors import OperatorError
from spoold.nix import places
from spoold.spool import layout, lists


@click.command(short_help="Make the spool: its directories and modes.")
@JSON
@pass_settings
def init(settings: Settings, *, as_json: bool) -> None:
    """Make the spool and the Nix state: their directories with owners and modes. Those that exist are kept.

    If root runs it on a host with the users spoold-intake, spoold-executor, spoold-builder, spoold-health and
    spoold-scale and the groups spoold and spoold-build, the directories belong to these (systemd/sysusers.d makes the
    users and groups). Otherwise one user has to run all daemons, and the builder makes the Nix state when it starts.
    The command prints what it made or mended.

    As root it also tries, as several users, whether access control lists work on this file system as responses need
    them. If they do not, it says which setting to change.

    \b
    Examples:
      spoolctl --spool /srv/spool init

    Exit codes: 0 the spool is there now, 1 it cannot be made, or [spool] answers does not fit its file system.
    """
    try:
        changed = layout.create(settings.spool.path, layout.owners_for(settings.spool.path))
        made = []
        if owners := places.owners_for(settings.nix.state):
            made = places.create(settings.nix.state, owners)
        hint = lists.settle(settings)
    except PermissionError as error:
        reason = (
            "run this as root. On NFS, export the spool to this host with no_root_squash. If spoold-spool.service runs "
            "it, name a spool or a Nix state outside the usual places in ReadWritePaths= of a drop-in"
        )
        raise OperatorError(f"{error.filename}: {error.strerror}: {reason}") from error
    if as_json:
        click.echo(msgspec.json.encode({"spool": settings.spool.path, "changed": changed + made}))
        return
    for path in changed + made:
        click.echo(path)
    if hint:
        click.echo(hint, err=True)
    click.echo(f"{settings.spool.path}: " + ("made" if changed + made else "nothing to do"), err=True)
    if places.was_taken_over(settings.nix.state, made):
        click.echo(
            f"{settings.nix.state}: belonged to the builder as a whole, as in earlier versions. Builds of those "
            "versions could change the packages of others. Once the builder runs, check with `spoolctl deps verify` "
            "that none did",
            err=True,
        )


@click.command(short_help="Print the settings in force.")
@click.option(
    "--defaults", "as_file", is_flag=True, help="Print a file in which every setting is explained and commented out."
)
@click.option(
    "--migrate", is_flag=True, help="Rewrite the file with the current names of settings, and say which had old names."
)
@JSON
@pass_place
def config(place: Place, *, as_file: bool, migrate: bool, as_json: bool) -> None:
    """Print the settings in force, as TOML: those of the file, and defaults for the others.

    The manual page spoold.toml(5), and the file that --defaults prints, explain each setting. Former names of settings
    are understood, and reported on stderr. --migrate replaces them in the file, and moves the comments above a setting
    with it. All else in the file stays.

    \b
    Examples:
      spoolctl config
      spoolctl config --defaults > /etc/spoold/spoold.toml
      spoolctl --config ./spoold.toml config --json | jq .lease
      spoolctl config --migrate

    Exit codes: 0 printed or rewritten, 1 the file cannot be read or written, or has an unknown setting, or a weight for
    a user who does not exist.
    """
    settings = place.settings
    file = file_in_use(place.config)
    if migrate:
        changed = migration.migrate(file) if file else []
        click.echo(
            msgspec.json.encode({"file": file, "renamed": changed}) if as_json else migration.told(file, changed)
        )
        return
    if file and (found := former_names(Path(file).read_bytes())):
        click.echo(migration.hint(file, found), err=True)
    if as_file:
        click.echo(defaults.text(), nl=False)
        return
    weights(settings.turns.weights)  # raises the errors for which the daemons would refuse to start
    click.echo(msgspec.json.encode(settings) if as_json else msgspec.toml.encode(msgspec.to_builtins(settings)))
