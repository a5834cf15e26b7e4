"""The ``spoolctl`` command: the person's tool."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console

from spoold.cli import check, client, defaults, deps, doctor, exits, migration, operator, pins, render, text, top
from spoold.cli.options import JSON, TIMEOUT
from spoold.config import Settings, file_in_use, former_names, load
from spoold.host.persons import weights
from spoold.model.errors import ClientError, OperatorError
from spoold.model.response import Response, Status
from spoold.model.submission import Request
from spoold.nix import places
from spoold.spool import layout, lists
from spoold.spool.store import published


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", metavar="FILE", help="Settings in TOML. [default: $SPOOLD_CONFIG, /etc/spoold/spoold.toml]")
@click.option(
    "--spool", metavar="DIRECTORY", envvar="SPOOLD_SPOOL", help="The spool. [default: $SPOOLD_SPOOL, the settings]"
)
@click.version_option(package_name="spoold")
@click.pass_context
def command(context: click.Context, config: str | None, spool: str | None) -> None:
    """Submit programs to spoold and read the responses.

    A submission is a JSON file in the spool's incoming/ directory; this command is a convenience, and `cp` works as
    well. `spoolctl COMMAND --help` says more of each command, with examples; --json prints for programs.

    \b
    Examples:
      spoolctl submit homework/ --stdin input.txt --wait
      spoolctl status alice-ex3
      spoolctl --spool /srv/spool top

    Exit codes: 0 done, 1 cannot be done, 2 wrong usage, 3 a bug, 4 still on its way after --timeout, 5 (with --wait)
    not COMPLETED, 130 interrupted.
    """
    settings = load(config)
    if spool is not None:
        settings = msgspec.structs.replace(settings, spool=msgspec.structs.replace(settings.spool, path=spool))
    context.obj = settings


@command.command(short_help="Make the spool: its directories and modes.")
@JSON
@click.pass_obj
def init(settings: Settings, *, as_json: bool) -> None:
    """Make the spool and the Nix state: their directories with owners and modes. It keeps those that exist.

    Run by root, on a host that has the users spoold-intake, spoold-executor, spoold-builder and spoold-health and the
    groups spoold and spoold-build (systemd/sysusers.d makes them), they are theirs to share; else one user has to run
    all daemons, and the builder makes the Nix state when it starts. It prints what it made or mended.

    Root also tries, as several users, whether access control lists do on this file system what responses need. Where
    they do not, it says which setting to change.

    \b
    Examples:
      spoolctl --spool /srv/spool init

    Exit codes: 0 it is there now, 1 it cannot be made, or [spool] answers does not fit its file system.
    """
    try:
        changed = layout.create(settings.spool.path, layout.owners_for(settings.spool.path))
        made = []
        if owners := places.owners_for(settings.nix.state):
            made = places.create(settings.nix.state, owners)
        hint = lists.settle(settings)
    except PermissionError as error:
        reason = (
            "run this as root; on NFS, export the spool to this host with no_root_squash; under spoold-spool.service, "
            "name a spool or a Nix state in a place of its own in ReadWritePaths= of a drop-in"
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
            f"{settings.nix.state}: was the builder's as a whole, as in earlier versions. Their builds could change "
            "what others use. Run `spoolctl deps verify` once the builder runs, to see that none did",
            err=True,
        )


@command.command(short_help="Submit a request, or a directory with run.sh.")
@click.argument("source", metavar="FILE|DIRECTORY", type=click.Path(exists=True, path_type=Path))
@click.option("--id", "id_", metavar="ID", help="The submission's id. [default: the name and a random part]")
@click.option(
    "--stdin",
    "stdin",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What run.sh reads on standard input.",
)
@click.option(
    "--arg",
    "arguments",
    multiple=True,
    metavar="ARG",
    help="An argument of run.sh; may be repeated. No secrets: all users of the host can read it while the job runs.",
)
@click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="NAME=VALUE",
    help="A variable of run.sh; may be repeated. Others can read this command line: put secrets into a request FILE.",
)
@click.option("--wait", is_flag=True, help="Wait for the response and show it.")
@TIMEOUT
@JSON
@click.pass_obj
def submit(
    settings: Settings,
    *,
    source: Path,
    id_: str | None,
    stdin: Path | None,
    arguments: tuple[str, ...],
    variables: tuple[str, ...],
    wait: bool,
    timeout: float,
    as_json: bool,
) -> int:
    """Submit a request (a JSON FILE), or a DIRECTORY that has run.sh, cutor.nix, compile.sh and whatever they need.

    Without --wait it prints the id, under which `spoolctl status` tells the rest.

    \b
    Examples:
      spoolctl submit homework/ --stdin input.txt --arg fast --env LANG=C.UTF-8 --wait
      spoolctl submit request.json --id alice-ex3 --json --wait

    Exit codes: 0 submitted (with --wait: COMPLETED), 1 not submitted, 4 still on its way after --timeout, 5 (with
    --wait) it ended otherwise.
    """
    if source.is_dir():
        request = client.request_from_directory(source)
        data = client.as_bytes(_with_inputs(request, stdin, arguments, variables))
    elif stdin or arguments or variables:
        raise click.UsageError("--stdin, --arg and --env go with a DIRECTORY; a request FILE has its own")
    else:
        data = source.read_bytes()
    id_ = id_ or client.new_id(source.resolve().name.removesuffix(".json"))
    client.drop(settings.spool.path, id_, data)
    if not wait:
        click.echo(msgspec.json.encode({"Submission_id": id_}) if as_json else id_)
        return exits.OK
    return _wait_and_show(settings, id_, timeout, as_json=as_json)


def _with_inputs(
    request: Request, stdin: Path | None, arguments: tuple[str, ...], variables: tuple[str, ...]
) -> Request:
    pairs = [variable.partition("=") for variable in variables]
    if any(not separator for _, separator, _ in pairs):
        raise click.UsageError("--env takes NAME=VALUE")
    inputs, encoding = client.encoded(stdin.read_bytes() if stdin else b"")
    return msgspec.structs.replace(
        request,
        inputs=inputs,
        inputs_encoding=encoding,
        args=list(arguments),
        env={name: value for name, _, value in pairs},
    )


@command.command(short_help="Show a response, or how far it is.")
@click.argument("id_", metavar="ID")
@JSON
@click.pass_obj
def status(settings: Settings, id_: str, as_json: bool) -> int:
    """Show a submission's response, or how far it is.

    \b
    Examples:
      spoolctl status alice-ex3
      spoolctl status alice-ex3 --json | jq -r .run.stdout

    Exit codes: 0 shown, whatever it came to; 1 nothing is known of it (yet), or it is another user's.
    """
    client.require_spool(settings.spool.path)
    response = client.look(settings.spool.path, id_)
    if response is None:
        raise ClientError(f"{id_!a}: {client.why_unknown(settings.spool.path, id_)}")
    _show(id_, response, as_json=as_json)
    if doubt := client.doubt(settings.spool.path, id_):
        click.echo(doubt, err=True)
    if idle := client.idle_cancel(settings.spool.path, id_):
        click.echo(idle, err=True)
    return exits.OK


@command.command(short_help="End a submission, whatever state it is in.")
@click.argument("id_", metavar="ID")
@click.option("--wait", is_flag=True, help="Wait for the response and show it.")
@TIMEOUT
@JSON
@click.pass_obj
def cancel(settings: Settings, *, id_: str, wait: bool, timeout: float, as_json: bool) -> int:
    """End a submission of yours, whatever state it is in. The operator may end anyone's.

    Its response comes as ever: CANCELLED, or what it had come to already. A program that runs is stopped within
    seconds. Whether there is such a submission, and whether it is yours, is not said here, since nobody may know that
    of others': `spoolctl status ID` tells, or --wait. Without this command, a file ID.cancel or ID@WORD.cancel in
    incoming/ that holds the id does the same.

    \b
    Examples:
      spoolctl cancel alice-ex3
      spoolctl cancel alice-ex3 --wait --timeout 60

    Exit codes: 0 asked for (with --wait: CANCELLED), 1 it cannot be asked for, 4 nothing came within --timeout: then it
    is perhaps not a submission of yours; 5 (with --wait) it ended otherwise.
    """
    client.cancel(settings.spool.path, id_)
    if not wait:
        asked = f"{id_}: asked to be cancelled; `spoolctl status {id_}` tells what comes of it"
        click.echo(msgspec.json.encode({"Submission_id": id_}) if as_json else asked)
        return exits.OK
    return _wait_and_show(settings, id_, timeout, as_json=as_json, wanted=Status.CANCELLED)


@command.command(short_help="Print the settings in force.")
@click.option(
    "--defaults", "as_file", is_flag=True, help="Print a file with every setting, explained and commented out."
)
@click.option(
    "--migrate", is_flag=True, help="Rewrite the file with the names that settings have today; say which had others."
)
@JSON
@click.pass_context
def config(context: click.Context, *, as_file: bool, migrate: bool, as_json: bool) -> None:
    """Print the settings in force, as TOML: those of the file, and the defaults of what it does not name.

    What each means is in the manual page spoold.toml(5), and in the file that --defaults prints. Settings that have
    other names today are understood, and named on stderr. --migrate moves them in the file, with the comments above
    them; all else in it stays.

    \b
    Examples:
      spoolctl config
      spoolctl config --defaults > /etc/spoold/spoold.toml
      spoolctl --config ./spoold.toml config --json | jq .lease
      spoolctl config --migrate

    Exit codes: 0 printed or rewritten, 1 the file cannot be read or written, or has a setting that there is not, or
    weights of nobody.
    """
    settings: Settings = context.obj
    file = file_in_use(context.parent.params["config"] if context.parent else None)
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
    weights(settings.turns.weights)  # raises what daemons would refuse to start with
    click.echo(msgspec.json.encode(settings) if as_json else msgspec.toml.encode(msgspec.to_builtins(settings)))


def _wait_and_show(
    settings: Settings, id_: str, timeout: float, *, as_json: bool, wanted: Status = Status.COMPLETED
) -> int:
    response = client.wait(settings.spool.path, id_, timeout)
    if response is None:
        return exits.timed_out(id_, timeout)
    _show(id_, response, as_json=as_json)
    return exits.OK if response.status is wanted else exits.NOT_COMPLETED


def _show(id_: str, response: Response, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(published(id_, response))
    else:
        render.show_response(Console(highlight=False, markup=False), text.printable(id_), response)


command.add_command(check.command, "check")
command.add_command(deps.command, "deps")
command.add_command(doctor.command, "doctor")
command.add_command(operator.collect, "gc")
command.add_command(operator.requeue, "requeue")
command.add_command(pins.command, "nixpkgs")
command.add_command(top.command, "top")


def main() -> None:
    """Run the command."""
    exits.run(command, "spoolctl")


if __name__ == "__main__":
    main()
