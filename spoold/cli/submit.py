"""``spoolctl submit``: check a request, and put it into the drop box."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from spoold import client
from spoold.cli import asked, exits, waiting
from spoold.cli.options import JSON, RAW, TIMEOUT
from spoold.cli.place import Place, pass_place
from spoold.cli.submissions import wait_for
from spoold.client import names


@click.command(short_help="Submit a request, or a directory with run.sh.")
@click.argument("source", metavar="FILE|DIRECTORY|-", type=click.Path(exists=True, allow_dash=True, path_type=Path))
@click.option("--id", "id_", metavar="ID", help="The submission's id. [default: the name and a random part]")
@asked.request_options
@click.option(
    "--leave-out", is_flag=True, help="Leave out files that cannot be sent, such as links out of a DIRECTORY."
)
@click.option("--dry-run", is_flag=True, help="Print the request as JSON and submit nothing.")
@click.option("--wait", is_flag=True, help="Wait for the response and show it.")
@click.option("--follow", is_flag=True, help="Wait, and show on stderr what the program prints.")
@RAW
@TIMEOUT
@JSON
@pass_place
def submit(
    place: Place,
    *,
    source: Path,
    id_: str | None,
    leave_out: bool,
    dry_run: bool,
    wait: bool,
    follow: bool,
    raw: bool,
    timeout: float,
    as_json: bool,
    **options: Any,
) -> int:
    """Submit a request (a JSON FILE, or - for standard input), or a DIRECTORY with run.sh and the files that it needs.

    All files in a DIRECTORY are submitted, hidden files too, except those that no program needs, such as .git. Links
    are followed if they stay in it. If a file cannot be submitted, it is named, and nothing is submitted. Options
    replace values in a FILE, or add to them. The request is checked before it is sent. Without --wait the command
    prints the id, for `spoolctl status` and `spoolctl wait`.

    \b
    Examples:
      spoolctl submit homework/ --stdin input.txt --arg fast --env LANG=C.UTF-8 --wait
      spoolctl submit plot/ --packages 'python3 python3Packages.matplotlib' --output 'plot*.png' --limit memory=512M
      spoolctl submit request.json --id alice-ex3 --json --wait
      spoolctl submit simulation/ --follow

    Exit codes: 0 submitted (with --wait: COMPLETED), 1 it cannot be submitted, 4 still on its way after --timeout, 5
    (with --wait) the program failed, 6 it was refused, 7 the service failed, 8 cancelled.
    """
    wanted = asked.Asked(**options)
    data = asked.data_of(source, wanted._replace(progress=wanted.progress or follow), leave_out=leave_out)
    asked.check(data, source)
    if dry_run:
        sys.stdout.buffer.write(msgspec.json.format(data, indent=2) + b"\n")
        return exits.OK
    id_ = id_ or names.new_id(source.resolve().name.removesuffix(".json") if source != asked.STDIN else "job")
    with client.Spool(place.spool) as spool:
        submission = waiting.drop(spool, data, id_, str(source))
        if not wait and not follow and not raw:
            return _submitted(spool, submission, as_json=as_json)
        try:
            click.echo(f"{submission.id}: submitted", err=True)
            return wait_for(spool, submission, timeout, follow=follow, as_json=as_json, raw=raw)
        except KeyboardInterrupt:
            return waiting.interrupted(submission.id)


def _submitted(spool: client.Spool, submission: client.Submission, *, as_json: bool) -> int:
    """Print the id once the request is taken in. Fail if it is refused, and say if it is not taken in."""
    if refused := spool.refusal(submission, waiting.SOON):
        raise asked.RefusedError(f"{submission.id}: {refused.reason}")
    if spool.transport.is_dropped(submission.file):
        click.echo(f"{waiting.not_taken(spool, submission)}. {waiting.LOOK_AT}", err=True)
    click.echo(msgspec.json.encode({"Submission_id": submission.id}) if as_json else submission.id)
    return exits.OK
