"""``spoolctl deps build``: build shells ahead, by requests of the kind ``build`` that any client may make."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
from msgspec import UNSET
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from spoold import client
from spoold.cli import asked, exits, reading, render, tables, text, warm
from spoold.cli.options import JSON, PIN, TIMEOUT
from spoold.cli.place import Place, pass_place
from spoold.cli.warm import LeftOut, Shell
from spoold.model.response import Outcome, Response, Status
from spoold.model.submission import EXPRESSION_FILE, File, Request

PAUSE = 0.3  # seconds between two looks at the state of the builds
LEFT_OUT_SHOWN = 20


class Build(NamedTuple):
    """A shell to be built, the files that ask for it, and its submission."""

    shell: Shell
    sources: list[Path]
    submission: client.Submission


Answers = dict[str, Response]


@click.command(short_help="Build shells before submissions need them.")
@click.argument("sources", nargs=-1, required=True, metavar="FILE|DIRECTORY...", type=click.Path(path_type=Path))
@PIN
@click.option("--wait", is_flag=True, help="Wait until all are built, and show the results.")
@TIMEOUT
@JSON
@pass_place
def build(place: Place, *, sources: tuple[Path, ...], pin: str, wait: bool, timeout: float, as_json: bool) -> int:
    """Build shells ahead, so that no submission has to wait for them at the deadline.

    A FILE is a shell expression, such as cutor.nix, or a request in JSON (*.json). A DIRECTORY with cutor.nix or run.sh
    is a submission. Any other DIRECTORY stands for all of these that are in it and below it. Each shell is asked for
    once, even if several sources name it. The requests go through the spool like any submission, so anybody may make
    them. Nothing is compiled or run.

    \b
    Examples:
      spoolctl deps build course/shells/ --wait
      spoolctl deps build submissions/week-3/ --wait --json | jq -r '.builds[] | .build_id'
      spoolctl deps build numpy.nix --nixpkgs 24.11

    Exit codes: 0 asked for (with --wait: all are built), 1 it cannot be asked for, 4 not all are built within
    --timeout: the builds go on; 5 (with --wait) a build failed, or something in a DIRECTORY was left out.
    """
    for source in sources:
        if not source.exists():
            raise click.UsageError(f"{source} does not exist")
    wanted = warm.find(sources, pin, asked.MANY)
    with client.Spool(place.spool) as spool:
        builds = [ask(spool, shell, paths) for shell, paths in wanted.shells.items()]
        answers = wait_for(spool, builds, timeout) if wait else {}
    if as_json:
        click.echo(msgspec.json.encode(told(builds, answers, wanted.left_out)))
    else:
        show(builds, answers if wait else None)
        _show_left_out(wanted.left_out)
    return code(builds, answers, wanted.left_out) if wait else exits.OK


def ask(spool: client.Spool, shell: Shell, sources: list[Path]) -> Build:
    """Ask for a shell that ``sources`` name."""
    request = Request(kind="build", files=[File(name=EXPRESSION_FILE, content=shell.expression)], nixpkgs=shell.nixpkgs)
    return Build(shell, sources, spool.submit(msgspec.json.encode(request) + b"\n", stem="build"))


def wait_for(spool: client.Spool, builds: list[Build], timeout: float) -> Answers:
    """Return the responses that came in time, by id.

    Show meanwhile how many came, and the state of the other builds.
    """
    answers: Answers = {}
    columns = (
        TextColumn("building"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(builds), now="")
        look = Looking(spool, [each.submission for each in builds], lambda now: progress.update(task, now=now))
        nothing = lambda: None  # noqa: E731 - short
        meanwhile = look.look if progress.console.is_terminal else nothing
        submissions = (each.submission for each in builds)
        with contextlib.suppress(client.TimedOutError):
            for done in spool.as_completed(submissions, timeout=timeout, meanwhile=meanwhile):
                done.result()
                answers[done.id] = reading.decoded(done.raw, done.id)
                progress.update(task, completed=len(answers))
    return answers


class Looking:
    """Says from time to time how many builds are in the queue, and how many are running."""

    def __init__(self, spool: client.Spool, submissions: list[client.Submission], say: Callable[[str], object]) -> None:
        self._spool = spool
        self._submissions = submissions
        self._say = say
        self._next = 0.0

    def look(self) -> None:
        """Look, unless the last look was a moment ago."""
        if time.monotonic() < self._next:
            return
        states: Counter[str] = Counter()
        for each in self._submissions:
            response = None if each.done else self._spool.status(each.id)
            if response and response.waiting_for:
                states[response.waiting_for.state] += 1
        self._say(text.printable(", ".join(f"{count} {state}" for state, count in sorted(states.items()))))
        self._next = time.monotonic() + PAUSE


def told(builds: list[Build], answers: Answers, left_out: list[LeftOut]) -> dict[str, object]:
    """Return the results of the builds, for programs."""

    def row(each: Build) -> dict[str, object]:
        response = answers.get(each.submission.id)
        return {
            "Submission_id": each.submission.id,
            "nixpkgs": each.shell.nixpkgs,
            "sources": list(map(str, each.sources)),
            "build_id": response.build_id if response and response.build_id is not UNSET else None,
            "response": response,
        }

    return {
        "builds": [row(each) for each in builds],
        "left_out": [{"source": str(each.source), "reason": each.reason} for each in left_out],
    }


def show(builds: list[Build], answers: Answers | None) -> None:
    """Print a table of the results of builds.

    ``answers`` is None where nobody waits; then it shows their ids instead.
    """
    columns = ("id",) if answers is None else ("outcome", "time")
    table = tables.Table("shell", "pin", *columns)
    for each in builds:
        cells = (each.submission.id,) if answers is None else _outcome(answers.get(each.submission.id))
        table.add_row(text.printable(warm.names(each.sources)), text.printable(each.shell.nixpkgs), *cells)
    reasons = []
    for each in builds:
        response = (answers or {}).get(each.submission.id)
        if response and response.status is not Status.COMPLETED:
            reasons += [f"\n{text.printable(warm.names(each.sources))}:", text.printable(_why(response), lines=True)]
    tables.show([table, *reasons])


def _outcome(response: Response | None) -> tuple[str, str]:
    if response is None:
        return "not yet", ""
    phase = response.dependencies
    if response.status is Status.REJECTED or not isinstance(phase.outcome, Outcome):
        return response.status, ""
    return phase.outcome, "cached" if phase.cached is True else render.seconds(phase.time)


def _why(response: Response) -> str:
    return response.reason if isinstance(response.reason, str) else response.dependencies.stderr


def _show_left_out(left_out: list[LeftOut]) -> None:
    for each in left_out[:LEFT_OUT_SHOWN]:
        click.echo(text.printable(f"left out: {each.source}: {each.reason}"), err=True)
    if len(left_out) > LEFT_OUT_SHOWN:
        click.echo(f"left out: {len(left_out) - LEFT_OUT_SHOWN} more; --json names all", err=True)


def code(builds: list[Build], answers: Answers, left_out: list[LeftOut]) -> int:
    """Return the exit code for the responses that came in time."""
    if len(answers) < len(builds):
        click.echo("not all are built yet. The builds continue, and `spoolctl status ID` shows each", err=True)
        return exits.TIMED_OUT
    if left_out or any(response.status is not Status.COMPLETED for response in answers.values()):
        return exits.NOT_COMPLETED
    return exits.OK
