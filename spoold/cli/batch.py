"""``spoolctl batch``: run many programs with one command."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import click

from spoold import client
from spoold.cli import asked, completing, exits, programs, records, sweep, tables
from spoold.cli.options import JSON, SECONDS
from spoold.cli.place import Place, pass_place
from spoold.cli.progress import Progress
from spoold.client.response import COMPLETED
from spoold.model.errors import ClientError

GOES_ON = "The submitted ones continue, and nothing is lost. The same command waits for them, and runs the others"


@click.command(short_help="Run many programs, and show the result of each.")
@click.argument(
    "sources",
    metavar="FILE|DIRECTORY|LIST.jsonl|-...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, allow_dash=True, path_type=Path),
    shell_complete=completing.files,
)
@click.option(
    "--jobs", type=click.IntRange(1), default=sweep.JOBS, show_default=True, help="How many programs run at once."
)
@click.option(
    "--table",
    metavar="FILE.csv",
    shell_complete=completing.files,
    help="Write a table of comma-separated values; - is standard output.",
)
@click.option(
    "--html",
    metavar="FILE",
    shell_complete=completing.files,
    help="Write a page for a browser: failures first, with outputs and times; - is standard output.",
)
@click.option(
    "--language",
    metavar="NAME",
    shell_complete=completing.languages,
    help="The language of the files, if their endings do not tell it.",
)
@click.option(
    "--again", is_flag=True, help="Try programs again that were cancelled, were refused, or failed without being run."
)
@click.option(
    "--leave-out", is_flag=True, help="Leave out files that cannot be sent, such as links out of a DIRECTORY."
)
@click.option(
    "--timeout", type=SECONDS, metavar="SECONDS", help="The longest time to wait for all. [default: no limit]"
)
@asked.request_options
@JSON
@pass_place
def batch(
    place: Place,
    *,
    sources: tuple[Path, ...],
    jobs: int,
    table: str | None,
    html: str | None,
    language: str | None,
    again: bool,
    leave_out: bool,
    timeout: float | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Run many programs, up to --jobs at once, and show the result of each.

    A FILE is a program in the language of its ending, or a request in JSON. A DIRECTORY with run.sh or cutor.nix is one
    program. Any other DIRECTORY stands for the programs in it. Each line of a LIST.jsonl is an object: {"name": ...}
    with {"source": ..., "file": "x.py"}, {"path": "x.py"} or {"request": {...}}, and any key of a request, such as args
    or limits. The options apply to each program.

    Nothing is lost and nothing runs twice, even if ^C, kill -9 or a power cut ends the command: the same command goes
    on. An edited program is a new one.

    \b
    Examples:
      spoolctl batch sweep/*.py --table results.csv --html results.html
      spoolctl batch sweep/ --stdin data.txt --limit time=60 --jobs 200
      spoolctl batch programs.jsonl --json >results.jsonl
      seq 100 | jq -c '{name: "n\\(.)", path: "sim.py", args: ["\\(.)"]}' | spoolctl batch - --table results.csv

    --json prints a line for each program as soon as its response comes: the name, the id and the response. The table
    has a row for each program, in the order of the arguments. In the table, cells that a spreadsheet would take for
    formulas begin with '.

    Exit codes: 0 all are COMPLETED, 1 a list or a file cannot be read or written, 4 not all came within --timeout, 5 a
    program failed, 6 one was refused, 7 the service failed, 8 one was cancelled; where several apply, the highest; 130
    interrupted.
    """
    wanted = asked.Asked(**options)
    if wanted.stdin == "-" and programs.STDIN in sources:
        raise click.UsageError("the list and --stdin cannot both come from standard input")
    if table == html == records.STDOUT:
        raise click.UsageError("--table and --html cannot both go to standard output")
    records.require_writable(table, html)
    inputs = None if wanted.stdin is None else asked.inputs(wanted.stdin)
    reader = programs.Reader(wanted._replace(stdin=None), inputs=inputs, language=language, leave_out=leave_out)
    found = reader.find(list(sources))
    programs.said_of(found.left_out)
    if not found.programs:
        raise ClientError("there is no program in the arguments: `spoolctl batch --help` says what counts as one")
    with client.Spool(place.spool) as spool:
        return _run(spool, found.programs, jobs, Files(table, html), timeout, again=again, as_json=as_json)


class Files(NamedTuple):
    """Where to write the table and the page, if anywhere."""

    table: str | None
    html: str | None

    @property
    def on_stdout(self) -> bool:
        return records.STDOUT in self

    def write(self, results: list[sweep.Result]) -> None:
        """Write the files that are wanted. Raises :class:`OperatorError`."""
        if self.table:
            records.write_values(self.table, records.COLUMNS, map(records.row, results))
        if self.html:
            from spoold.cli import report  # noqa: PLC0415 - most runs want no page

            rows = [report.Row(records.shown(each.name), each.id, each.response) for each in results]
            made = f"spoolctl batch, {time.strftime('%Y-%m-%d %H:%M %Z')}"
            records.write(self.html, report.html("Programs", rows, made=made).encode())


def _run(
    spool: client.Spool,
    found: list[sweep.Program],
    jobs: int,
    files: Files,
    timeout: float | None,
    *,
    again: bool,
    as_json: bool,
) -> int:
    shown = Progress(spool, len(found))

    def told(result: sweep.Result) -> None:
        if as_json:
            sys.stdout.buffer.write(records.told(result))
            sys.stdout.flush()
        shown.count(failed=result.response.status != COMPLETED)

    try:
        results = sweep.run(
            spool,
            found,
            jobs=jobs,
            again=again,
            timeout=timeout,
            told=told,
            kept=(lambda result: result) if any(files) else sweep.brief,
            meanwhile=shown.look,
        )
    except client.TimedOutError:
        shown.end()
        exits.say(f"{shown.done} of {len(found)} are done within {timeout:g} s. {GOES_ON}", exits.TIMED_OUT)
        return exits.TIMED_OUT
    except KeyboardInterrupt:
        shown.end()
        click.echo(f"\n{shown.done} of {len(found)} are done. {GOES_ON}", err=True)
        return exits.INTERRUPTED
    shown.end()
    return _tell(results, files, shown.span, as_json=as_json)


def _tell(results: list[sweep.Result], files: Files, span: float, *, as_json: bool) -> int:
    files.write(results)
    if not as_json and not files.on_stdout:
        tables.show(records.table(results, terminal=sys.stdout.isatty()))
    click.echo(records.summary(results, span), err=as_json or files.on_stdout)
    if any(result.was_there and result.response.status in sweep.AGAIN for result in results):
        click.echo("some were not run, now or before: --again tries them once more", err=True)
    return records.code(results)
