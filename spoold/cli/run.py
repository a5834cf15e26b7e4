"""``spoolctl run``: run files as if the program ran here, with its output in our terminal."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from spoold import client
from spoold.cli import asked, completing, exits, languages, tongues, waiting
from spoold.cli.live import Ours, Streams
from spoold.cli.options import JSON, TIMEOUT
from spoold.cli.place import Place, pass_place
from spoold.cli.text import printable
from spoold.client import names
from spoold.client import outputs as returned
from spoold.client.request import as_bytes
from spoold.client.response import COMPLETED, Response

ARGUMENTS = "spoold.arguments"  # key in the context's meta for the words after "--"
OF_OUTCOME = {
    "time_limit": "it ran longer than it may (--time allows more)",
    "cpu_limit": "it used more CPU time than it may (--time allows more)",
    "memory_limit": "it used more memory than it may (--memory allows more)",
    "output_limit": "it printed more than it may (--limit stdout=SIZE or stderr=SIZE allows more)",
    "file_limit": "it wrote a larger file than it may (--limit file_size=SIZE allows more)",
}


class _Command(click.Command):
    """A command that takes the arguments of another program after ``--``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[ARGUMENTS] = tuple(args[at + 1 :])
        return super().parse_args(ctx, args[:at])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- ARGS...]"]


@click.command(cls=_Command, short_help="Run a program: its files, or a line of code.")
@click.argument("files", metavar="[FILE...]", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("-c", "code", metavar="CODE", help="Run this code, in bash or the --language. The FILEs are beside it.")
@click.option(
    "--language",
    metavar="NAME",
    shell_complete=completing.languages,
    help="The language, if the ending of the first FILE tells none or more than one.",
)
@click.option(
    "--packages", multiple=True, metavar="NAMES", help="Further packages that the program needs: 'jq python3'."
)
@click.option(
    "--time", metavar="TIME", help="How long the program may run, in wall-clock time and in CPU time: 2, 500ms, 5min."
)
@click.option("--memory", metavar="SIZE", help="How much memory the program may use: 64M, 2G.")
@asked.options_of("env", "limit", "nixpkgs")
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="PATTERN",
    help="Files to write here when the program has ended, such as 'plot*.png'; may be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Print the request as JSON and run nothing.")
@TIMEOUT
@JSON
@pass_place
@click.pass_context
def run(
    context: click.Context,
    place: Place,
    /,
    *,
    files: tuple[Path, ...],
    code: str | None,
    language: str | None,
    dry_run: bool,
    timeout: float,
    as_json: bool,
    **options: Any,
) -> int:
    """Run FILE in the language of its ending, with ARGS and our standard input, and print its output.

    The first FILE that is a program is run, and the others are beside it. All files of a compiled language are compiled
    together. If cutor.nix, compile.sh or run.sh are among the files, they replace those that spoolctl would make. A
    directory stands for all its files. Standard input is read to its end first, unless it is a terminal.

    Output comes while the program runs, about once a second, each byte once. Files that come back by --output replace
    files here, but never a FILE. The program is cancelled by ^C, and when nobody reads its output any more. Many
    languages are built in. Tables in /etc/spoold/languages.toml and ~/.config/spoold/languages.toml add more and change
    them: see LANGUAGES in spoolctl(1).

    \b
    Examples:
      spoolctl run hello.py
      spoolctl run sum.c lib.c lib.h -- 20 22 <input.txt
      spoolctl run plot.py data.csv --packages python3Packages.matplotlib --output 'plot*.png'
      spoolctl run --packages 'python3 jq' -c 'python3 --version; jq --version'
      spoolctl run --language python -c 'print(6 * 7)'
      spoolctl run main.pl --language prolog --time 5 --memory 256M

    Exit codes: 0 and others are the program's own if it ended by itself, or 128 plus the number of the signal that
    ended it. Otherwise: 1 it cannot be submitted, 4 still on its way after --timeout, 5 it met a limit, was not
    compiled or its packages cannot be built, 6 it was refused, 7 the service failed, 8 it was cancelled. --json tells
    them apart.
    """
    program = _program(files, code, language, options.pop("packages"))
    wanted = _asked(context.meta[ARGUMENTS], time=options.pop("time"), memory=options.pop("memory"), **options)
    where = os.fspath(files[0]) if files else "-c"
    data = as_bytes(asked.laid_over({"files": program.files}, wanted))
    asked.check_bytes(data, where)
    if dry_run:
        sys.stdout.buffer.write(msgspec.json.format(data, indent=2) + b"\n")
        return exits.OK
    with client.Spool(place.spool) as spool:
        submission = waiting.drop(spool, data, names.new_id(Path(where).stem if files else "run"), where)
        return _Run(spool, submission, as_json=as_json).end(timeout, {file["name"] for file in program.files})


def _program(
    files: Sequence[Path], code: str | None, language: str | None, packages: Sequence[str]
) -> languages.Program:
    own = [name for words in packages for name in words.split()]
    if code is None:
        if not files:
            raise click.UsageError("give a FILE to run, or -c CODE")
        return languages.program(files, language, own)
    known = tongues.languages()
    name = tongues.find(known, language or "bash")
    return languages.program_of_text(code, name, files, own, known)


def _asked(arguments: tuple[str, ...], *, time: str | None, memory: str | None, **options: Any) -> asked.Asked:
    limits = [f"{key}={time}" for key in ("time", "cpu_time") if time] + ([f"memory={memory}"] if memory else [])
    given = asked.Asked(arguments=arguments, progress=True, stdin=_stdin(), **options)
    return given._replace(limits=(*limits, *given.limits))


def _stdin() -> str | None:
    """Return ``-`` if there is input to read. Input from a terminal is not used, as the program runs elsewhere."""
    try:
        return None if sys.stdin is None or sys.stdin.isatty() else "-"
    except ValueError:  # standard input is closed
        return None


class _Run:
    """A program on its way."""

    def __init__(self, spool: client.Spool, submission: client.Submission, *, as_json: bool) -> None:
        self._spool = spool
        self._submission = submission
        self._as_json = as_json
        self._streams = Streams(Ours(), whole=True)
        self._teller = waiting.Teller(spool, submission, brief=True)

    def end(self, timeout: float, sent: set[str]) -> int:
        """Wait for the end, and return the exit code. ``sent`` are the names of the submitted files."""
        try:
            response = self._spool.wait(self._submission, timeout, meanwhile=self._look)
        except client.TimedOutError:
            return exits.timed_out(self._submission.id, timeout)
        except KeyboardInterrupt:
            return self._cancelled()
        except BrokenPipeError:  # click would end with 1
            self._spool.cancel(self._submission)
            return exits.nobody_reads()
        finally:
            self._teller.end()
        if self._as_json:
            sys.stdout.buffer.write(self._submission.raw.rstrip(b"\n") + b"\n")
        else:
            self._streams.take(response, ended=True)
        self._save(response, sent)
        self._explain(response)
        return code_of(response)

    def _look(self) -> None:
        response = self._teller.look()
        if response is not None and not self._as_json:
            self._streams.take(response, ended=False)

    def _cancelled(self) -> int:
        id_ = self._submission.id
        try:
            self._spool.cancel(self._submission)
            click.echo(f"\n{id_}: its cancel was requested. `spoolctl status {id_}` shows the result", err=True)
        except client.SpoolError as error:
            click.echo(f"\n{id_}: it could not be cancelled, so it continues: {error}", err=True)
        return exits.INTERRUPTED

    def _explain(self, response: Response) -> None:
        """Say why the program ended, where its own exit code and output do not tell."""
        why = why_ended(response)
        for text in (why, *(response.notes if why or response.status != COMPLETED else ())):
            if text:
                click.echo(f"spoolctl: {self._submission.id}: {printable(text, lines=True)}", err=True)

    def _save(self, response: Response, sent: set[str]) -> None:
        files = [file for file in response.outputs or () if file.name not in sent]
        if files:
            contents = returned.contents(self._spool.transport, response, self._submission.id, files)
            returned.save(contents, files, os.curdir, over=True)
        for pattern in response.outputs_missing:
            click.echo(f"spoolctl: no file came back for {printable(pattern)}", err=True)


def code_of(response: Response) -> int:
    """Return the program's exit code, 128 plus the number of the signal that ended it, or a code of the table."""
    ran = response.run
    if ran.outcome == "nonzero_exit" and ran.exit_code is not None:
        return ran.exit_code
    if ran.outcome == "signalled":
        return 128 + getattr(signal, ran.signal, signal.SIGKILL)
    return exits.of(response.status, COMPLETED)


def why_ended(response: Response) -> str:
    """Return why a program did not end by itself; "" where it did."""
    if response.reason:
        return f"{response.status}: {response.reason}"
    if response.status == "DEPENDENCIES_FAILED":
        return "its packages could not be installed, see above"
    if response.status == "COMPILE_FAILED":
        return f"it was not compiled: {OF_OUTCOME.get(response.compile.outcome, 'see above')}"
    if response.run.outcome == "signalled":
        return f"{response.run.signal} ended it"
    if response.status in ("CANCELLED", "INTERNAL_ERROR"):
        return response.status
    return OF_OUTCOME.get(response.run.outcome, "")
