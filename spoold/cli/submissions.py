"""Commands for clients: wait for submissions, and cancel them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import click
import msgspec

from spoold import client
from spoold.cli import completing, exits, reading, waiting
from spoold.cli.follow import Follower
from spoold.cli.options import JSON, RAW, TIMEOUT
from spoold.cli.place import Place, pass_place
from spoold.cli.status import show
from spoold.client import names
from spoold.model.errors import ClientError
from spoold.model.response import Status


def wait_for(
    spool: client.Spool,
    submission: client.Submission,
    timeout: float,
    *,
    follow: bool = False,
    as_json: bool,
    raw: bool,
    wanted: Status = Status.COMPLETED,
) -> int:
    teller = waiting.Teller(spool, submission)
    follower = Follower(spool.transport, submission.id, partial(click.echo, nl=False, err=True))
    meanwhile = follower.look if follow else (lambda: None) if as_json else teller.look

    def shown(done: client.Submission) -> int:
        teller.end()
        return _show_end(done, as_json=as_json, raw=raw, wanted=wanted)

    return waiting.wait(spool, [submission], timeout, meanwhile, shown)


def _show_end(submission: client.Submission, *, as_json: bool, raw: bool, wanted: Status) -> int:
    submission.result()  # raises its error
    response = reading.decoded(submission.raw, submission.id)
    show(submission.id, response, as_json=as_json, raw=raw)
    return exits.of(response.status, wanted)


@click.command(short_help="Wait for responses, and show them.")
@click.argument("ids_", metavar="ID...", nargs=-1, required=True, shell_complete=completing.ids)
@click.option("--any", "any_of", is_flag=True, help="End when the first response comes.")
@RAW
@TIMEOUT
@JSON
@pass_place
def wait(place: Place, *, ids_: tuple[str, ...], any_of: bool, raw: bool, timeout: float, as_json: bool) -> int:
    """Wait for the responses of submissions, and show each as it comes. --json prints a line for each.

    \b
    Examples:
      spoolctl wait alice-ex3
      spoolctl wait ex3-1 ex3-2 ex3-3 --any --json

    Exit codes: 0 all are COMPLETED, 1 one is another user's, 4 not all came within --timeout, 5 a program failed, 6 one
    was refused, 7 the service failed, 8 one was cancelled; where several apply, the highest.
    """
    with client.Spool(place.spool) as spool:
        spool.transport.require()
        submissions = [client.Submission(_checked(id_)) for id_ in dict.fromkeys(ids_)]
        show = partial(_show_end, as_json=as_json, raw=raw, wanted=Status.COMPLETED)
        teller = waiting.Teller(spool, submissions[0]) if len(submissions) == 1 and not as_json else None
        nothing: Callable[[], object] = lambda: None  # noqa: E731 - it has a type
        return waiting.wait(
            spool, submissions, timeout, teller.look if teller else nothing, _after(teller, show), any_of=any_of
        )


def _after(
    teller: waiting.Teller | None, show: Callable[[client.Submission], int]
) -> Callable[[client.Submission], int]:
    def shown(done: client.Submission) -> int:
        if teller:
            teller.end()
        return show(done)

    return shown


@click.command(short_help="End a submission in any state.")
@click.argument("id_", metavar="ID", shell_complete=completing.ids)
@click.option("--wait", is_flag=True, help="Wait for the response and show it.")
@TIMEOUT
@JSON
@pass_place
def cancel(place: Place, *, id_: str, wait: bool, timeout: float, as_json: bool) -> int:
    """End a submission of yours, whatever state it is in. The operator may end anyone's.

    Its response comes as usual: CANCELLED, or the result that it had reached already. A running program is stopped
    within seconds, and the response has the output until then. This command does not say whether the submission exists
    and is yours, because nobody may learn that about other users' submissions. `spoolctl status ID` and --wait tell you
    about your own. Without this command, a file ID.cancel or ID@WORD.cancel in incoming/ that contains the id does the
    same.

    \b
    Examples:
      spoolctl cancel alice-ex3
      spoolctl cancel alice-ex3 --wait --timeout 60

    Exit codes: 0 asked for (with --wait: CANCELLED), 1 it cannot be asked for, 4 nothing came within --timeout: perhaps
    it is not a submission of yours; 5 to 7 (with --wait) it had ended otherwise.
    """
    with client.Spool(place.spool) as spool:
        spool.cancel(id_)
        if not wait:
            said = f"{id_}: its cancel was requested. `spoolctl status {id_}` shows the result"
            click.echo(msgspec.json.encode({"Submission_id": id_}) if as_json else said)
            return exits.OK
        submission = client.Submission(id_)
        return wait_for(spool, submission, timeout, as_json=as_json, raw=False, wanted=Status.CANCELLED)


def _checked(id_: str) -> str:
    if not names.is_id(id_):
        raise ClientError(f"{id_!a} cannot be an id: {names.RULE}: for example {names.proper(id_)}")
    return id_
