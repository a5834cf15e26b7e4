"""``spoolctl logs``: print the output of a program, so far or in all."""

from __future__ import annotations

import click

from spoold import client
from spoold.cli import completing, exits, reading, waiting
from spoold.cli.live import Lines, Ours, Streams
from spoold.cli.options import JSON, TIMEOUT
from spoold.cli.place import Place, pass_place
from spoold.client import names
from spoold.client.response import Response, read
from spoold.model.errors import ClientError


@click.command(short_help="Print what a program printed, so far or in all.")
@click.argument("id_", metavar="ID", shell_complete=completing.ids)
@click.option("-f", "--follow", is_flag=True, help="Print new output until the program has ended.")
@click.option("--raw", is_flag=True, help="Write the output to a terminal byte for byte, control characters included.")
@TIMEOUT
@JSON
@pass_place
def logs(place: Place, *, id_: str, follow: bool, raw: bool, timeout: float, as_json: bool) -> int:
    """Print the output of a submission's program: the output so far while it runs, and afterwards all of it.

    The program's standard output goes to our own. Its standard error and the output of compile.sh go to our standard
    error. A terminal gets control characters as text. While a program runs, only the last 64 KiB of each output are
    there, and only if it was submitted by `spoolctl run`, or with --progress or --follow. --json prints a line for each
    part.

    \b
    Examples:
      spoolctl logs sum-1
      spoolctl logs -f simulation-7
      spoolctl logs sum-1 2>/dev/null >output

    Exit codes: 0 printed, whatever came of the submission; 1 nothing is known of it (yet), or it is another user's; 4
    it has not ended within --timeout.
    """
    if not names.is_id(id_):
        raise ClientError(f"{id_!a} cannot be an id: {names.RULE}")
    sink = Lines() if as_json else Ours(readable=not raw)
    streams = Streams(sink, whole=False)

    def take(response: Response) -> None:
        streams.take(response, ended=response.ended)
        if response.ended and response.reason:
            sink.note(f"{id_}: {response.status}: {response.reason}")

    with client.Spool(place.spool) as spool:
        response = _so_far(spool, id_)
        if not follow:
            take(response)
            if not response.ended and not as_json:
                click.echo(f"{id_}: {waiting.how_far(response)}{_why_so_little(response)}", err=True)
            return exits.OK
        submission = client.Submission(id_)
        teller = waiting.Teller(spool, submission, brief=True)

        def look() -> None:
            if now := teller.look():
                take(now)

        def shown(done: client.Submission) -> int:
            teller.end()
            take(done.result())
            return exits.OK

        return waiting.wait(spool, [submission], timeout, look, shown)


def _so_far(spool: client.Spool, id_: str) -> Response:
    data, is_known = spool.transport.look(id_)
    if data is not None:
        return read(data)
    if is_known:
        return Response()
    from spoold.cli import misnaming  # noqa: PLC0415 - most ids are known

    raise ClientError(f"{id_}: {misnaming.why_unknown(reading.root(spool.transport), id_)}")


def _why_so_little(response: Response) -> str:
    shown = response.compile.stdout_bytes is not None or response.run.stdout_bytes is not None
    if shown or response.status not in ("COMPILING", "RUNNING"):
        return ""
    return "; its output is shown while it runs only if it was submitted with --progress, and after its first second"
