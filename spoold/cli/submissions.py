"""What clients do with submissions of theirs: drop them, look how far they are, and end them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import msgspec
from rich.console import Console

from spoold import client
from spoold.cli import exits, reading, render, text
from spoold.cli.follow import Follower
from spoold.cli.options import JSON, TIMEOUT
from spoold.client import names
from spoold.client.directory import Directory
from spoold.client.request import as_bytes, encoded
from spoold.config import Settings
from spoold.model import ids, misnamed
from spoold.model.errors import ClientError
from spoold.model.response import Response, Status

SOON = 2.0  # seconds in which a file that is whole is taken in, where nothing is in the way


@click.command(short_help="Submit a request, or a directory with run.sh.")
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
@click.option("--follow", is_flag=True, help="Wait, and meanwhile show on stderr what it prints.")
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
    follow: bool,
    timeout: float,
    as_json: bool,
) -> int:
    """Submit a request (a JSON FILE), or a DIRECTORY that has run.sh, cutor.nix, compile.sh and whatever they need.

    Without --wait it prints the id, under which `spoolctl status` tells the rest. With --follow a DIRECTORY asks for
    "progress", which a request FILE has to say itself.

    \b
    Examples:
      spoolctl submit homework/ --stdin input.txt --arg fast --env LANG=C.UTF-8 --wait
      spoolctl submit request.json --id alice-ex3 --json --wait
      spoolctl submit simulation/ --follow

    Exit codes: 0 submitted (with --wait: COMPLETED), 1 not submitted, 4 still on its way after --timeout, 5 (with
    --wait) it ended otherwise.
    """
    if source.is_dir():
        request = client.from_directory(source)
        _add_inputs(request, stdin, arguments, variables)
        if follow:
            request["progress"] = True
        data = as_bytes(request)
    elif stdin or arguments or variables:
        raise click.UsageError("--stdin, --arg and --env go with a DIRECTORY; a request FILE has its own")
    else:
        data = source.read_bytes()
    id_ = id_ or names.new_id(source.resolve().name.removesuffix(".json"))
    with client.Spool(settings.spool.path) as spool:
        submission = spool.submit(data, id=id_)
        if wait or follow:
            follower = Follower(spool.transport, submission.id, partial(click.echo, nl=False, err=True))
            return _wait(spool, submission, timeout, follower.look if follow else lambda: None, as_json=as_json)
        if refused := spool.refusal(submission, SOON):
            raise ClientError(f"{submission.id}: {refused.reason}")
        if spool.transport.is_dropped(submission.file):
            path = spool.transport.path("incoming", submission.file) if isinstance(spool.transport, Directory) else id_
            click.echo(reading.why_not_taken(path), err=True)
    click.echo(msgspec.json.encode({"Submission_id": submission.id}) if as_json else submission.id)
    return exits.OK


def _wait(
    spool: client.Spool,
    submission: client.Submission,
    timeout: float,
    meanwhile: Callable[[], object] = lambda: None,
    *,
    as_json: bool,
    wanted: Status = Status.COMPLETED,
) -> int:
    try:
        spool.wait(submission, timeout, meanwhile=meanwhile)
    except client.TimedOutError:
        return exits.timed_out(submission.id, timeout)
    response = reading.decoded(submission.raw, submission.id)
    _show(submission.id, response, as_json=as_json)
    return exits.OK if response.status is wanted else exits.NOT_COMPLETED


def _add_inputs(
    request: client.Request, stdin: Path | None, arguments: tuple[str, ...], variables: tuple[str, ...]
) -> None:
    pairs = [variable.partition("=") for variable in variables]
    if any(not separator for _, separator, _ in pairs):
        raise click.UsageError("--env takes NAME=VALUE")
    request["inputs"], request["inputs_encoding"] = encoded(stdin.read_bytes() if stdin else b"")
    request["args"] = list(arguments)
    request["env"] = {name: value for name, _, value in pairs}


@click.command(
    short_help="Show a response, or how far it is.",
    context_settings={"ignore_unknown_options": True},  # -x.json is the name of a file that was refused
)
@click.argument("id_", metavar="ID")
@JSON
@click.pass_obj
def status(settings: Settings, id_: str, as_json: bool) -> int:
    """Show a submission's response, or how far it is. ID may be the name of a file that was refused for its name.

    \b
    Examples:
      spoolctl status alice-ex3
      spoolctl status alice-ex3 --json | jq -r .run.stdout
      spoolctl status 'homework (1).json'

    Exit codes: 0 shown, whatever it came to; 1 nothing is known of it (yet), or it is another user's.
    """
    with client.Spool(settings.spool.path) as spool:
        here = reading.root(spool.transport)
        response = reading.look(spool.transport, id_)
    if response is None:
        raise ClientError(f"'{misnamed.shown(id_)}': {reading.why_unknown(here, id_)}")
    _show(id_, response, as_json=as_json)
    if here and ids.is_id(id_):
        for said in (reading.doubt(here, id_), reading.idle_cancel(here, id_)):
            if said:
                click.echo(said, err=True)
    return exits.OK


@click.command(short_help="End a submission, whatever state it is in.")
@click.argument("id_", metavar="ID")
@click.option("--wait", is_flag=True, help="Wait for the response and show it.")
@TIMEOUT
@JSON
@click.pass_obj
def cancel(settings: Settings, *, id_: str, wait: bool, timeout: float, as_json: bool) -> int:
    """End a submission of yours, whatever state it is in. The operator may end anyone's.

    Its response comes as ever: CANCELLED, or what it had come to already. A program that runs is stopped within
    seconds, and the response has what it printed until then. Whether there is such a submission, and whether it is
    yours, is not said here, since nobody may know that of others': `spoolctl status ID` tells, or --wait. Without this
    command, a file ID.cancel or ID@WORD.cancel in incoming/ that holds the id does the same.

    \b
    Examples:
      spoolctl cancel alice-ex3
      spoolctl cancel alice-ex3 --wait --timeout 60

    Exit codes: 0 asked for (with --wait: CANCELLED), 1 it cannot be asked for, 4 nothing came within --timeout: then it
    is perhaps not a submission of yours; 5 (with --wait) it ended otherwise.
    """
    with client.Spool(settings.spool.path) as spool:
        spool.cancel(id_)
        if not wait:
            asked = f"{id_}: asked to be cancelled; `spoolctl status {id_}` tells what comes of it"
            click.echo(msgspec.json.encode({"Submission_id": id_}) if as_json else asked)
            return exits.OK
        return _wait(spool, client.Submission(id_), timeout, as_json=as_json, wanted=Status.CANCELLED)


def _show(id_: str, response: Response, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode(response) + b"\n")
    else:
        render.show_response(Console(highlight=False, markup=False), text.printable(id_), response)
