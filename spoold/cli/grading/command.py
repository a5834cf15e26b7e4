"""``spoolctl grade``: grade solutions by cases with one command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from spoold import client
from spoold.cli import asked, completing, exits, records, tables
from spoold.cli.batch import GOES_ON
from spoold.cli.grading import cases, options
from spoold.cli.grading.flow import Runner
from spoold.cli.grading.graded import Graded
from spoold.cli.grading.solutions import Finder
from spoold.cli.grading.suite import Requests, Suite
from spoold.cli.options import JSON, SECONDS
from spoold.cli.place import Place, pass_place
from spoold.cli.programs import said_of
from spoold.cli.progress import Progress
from spoold.cli.sweep import JOBS
from spoold.model.errors import ClientError

FILES = {
    "csv": "Write a table of comma-separated values, a row for each solution; - is standard output.",
    "html": "Write a page for graders: verdicts by case, differences and times. It shows hidden cases too.",
    "junit": "Write a report in JUnit's XML format.",
    "gradescope": "Write Gradescope's results.json; for several solutions, a directory with one for each.",
    "ctrf": "Write a report in the Common Test Report Format.",
}
PACKAGE_FILE = "problem.yaml"
ARCHIVES = (".zip", ".kpp")


class Wanted(NamedTuple):
    """The options of ``grade`` that apply to all solutions."""

    cases: Path | None
    compare: str | None
    checker: Path | None
    interactor: Path | None
    protocol: str | None
    time: str | None
    memory: str | None
    limits: tuple[str, ...]
    points: tuple[str, ...]
    stop: bool
    hide: bool
    nixpkgs: str | None
    priority: int | None

    def keys(self) -> dict[str, Any]:
        """Return the keys that these options add to each request."""
        limits = [*(f"run.cpu_time={self.time}" for _ in [0] if self.time), *self.limits]
        limits += [f"run.memory={self.memory}"] if self.memory else []
        return asked.laid_over({}, asked.Asked(limits=tuple(limits), nixpkgs=self.nixpkgs, priority=self.priority))


def file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for each format of a report."""
    for name, about in reversed(FILES.items()):
        command = click.option(f"--{name}", metavar="FILE", shell_complete=completing.files, help=about)(command)
    return command


@click.command(short_help="Grade solutions by cases, or check a problem package.")
@click.argument(
    "sources",
    metavar="SOLUTION...|PACKAGE [SUBMISSION...]",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
    shell_complete=completing.files,
)
@click.option(
    "--cases",
    metavar="DIRECTORY",
    shell_complete=completing.directories,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The directory of the cases: N.in, and N.out or N.ans. Directories in it are groups.",
)
@click.option("--compare", metavar="WORDS", help="How outputs are compared, such as tokens, or 'kattis float=1e-6'.")
@click.option(
    "--checker",
    metavar="FILE|DIRECTORY",
    shell_complete=completing.files,
    type=click.Path(exists=True, path_type=Path),
    help="A program that says whether an output is right.",
)
@click.option(
    "--interactor",
    metavar="FILE|DIRECTORY",
    shell_complete=completing.files,
    type=click.Path(exists=True, path_type=Path),
    help="A program that talks with each solution while that runs, and says whether it is right. It alone reads N.in.",
)
@click.option(
    "--protocol",
    type=click.Choice(["kattis", "testlib", "cms"]),
    help="How the checker or interactor is called; cms is for checkers. [default: testlib if it uses testlib.h, "
    "otherwise kattis]",
)
@click.option("--time", metavar="SECONDS", help="The CPU time limit of each case. The wall-clock limit is twice that.")
@click.option("--memory", metavar="SIZE", help="The memory limit of each case, such as 256M.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="[PHASE.]KEY=VALUE",
    help="Another limit, as for `submit`; may be repeated.",
)
@click.option(
    "--points",
    multiple=True,
    metavar="[GROUP=]POINTS",
    help="The points of all cases, or of a group's cases, together; may be repeated. [default: 1 each]",
)
@click.option("--stop", is_flag=True, help="Skip the cases after one that fails.")
@click.option(
    "--hide", is_flag=True, help="Make responses tell little of hidden cases too. Use it if you hand responses on."
)
@click.option(
    "--language",
    metavar="NAME",
    shell_complete=completing.languages,
    help="The language of the solutions, if their endings do not tell it.",
)
@click.option("--packages", multiple=True, metavar="NAMES", help="Further packages of nixpkgs that solutions need.")
@click.option("--nixpkgs", metavar="NAME", help="The pin that packages come from.")
@click.option(
    "--priority",
    type=int,
    metavar="N",
    help="Of your submissions, those with a higher priority run first; -100 to 100.",
)
@click.option("--jobs", type=click.IntRange(1), default=JOBS, show_default=True, help="How many solutions run at once.")
@click.option(
    "--again", is_flag=True, help="Try solutions again that were cancelled, were refused, or failed without being run."
)
@click.option(
    "--timeout", type=SECONDS, metavar="SECONDS", help="The longest time to wait for all. [default: no limit]"
)
@file_options
@JSON
@pass_place
def grade(
    place: Place,
    *,
    sources: tuple[Path, ...],
    language: str | None,
    packages: tuple[str, ...],
    jobs: int,
    again: bool,
    timeout: float | None,
    as_json: bool,
    **wanted: Any,
) -> int:
    """Grade solutions by cases. Each solution is compiled once, and run on all cases.

    A SOLUTION is a file in the language of its ending, or a directory of files that belong together. If the only
    argument is a directory without run.sh and main.*, it contains the solutions. If some cases are in sample/, all
    others are hidden: a report for the person who is graded shows only their points.

    A PACKAGE is a directory with problem.yaml, as for Kattis, ICPC contests and DOMjudge, or such a directory in a
    NAME.zip or NAME.kpp. Each SUBMISSION is graded by the cases, groups, limits and validator of the package. If no
    SUBMISSION is named, those in submissions/ are graded. The command then says whether each result is what its
    directory, or submissions.yaml, expects. If no time limit is in problem.yaml, .timelimit or domjudge-problem.ini, it
    is the time of the slowest accepted submission, times a factor from the package. The validator of an interactive
    problem talks with the submission. Multi-pass problems are refused.

    After an interruption it goes on like `spoolctl batch`: a graded solution is not run again, unless the solution or
    the cases have changed.

    \b
    Examples:
      spoolctl grade alice.py bob.cpp carol/ --cases exercise-3/ --time 2 --points 100
      spoolctl grade submissions/ --cases exercise-3/ --compare 'tokens float=1e-6' --csv grades.csv --html grades.html
      spoolctl grade alice.py --cases exercise-3/ --checker check.py --gradescope results.json
      spoolctl grade alice.py --cases guess-a-number/ --interactor talk.py
      spoolctl grade oddecho/
      spoolctl grade oddecho/ alice.py --json | jq .verdict

    Exit codes: 0 all are accepted (for a PACKAGE: all are as it expects), 1 a file cannot be read or written, or the
    checker failed, 4 not all came within --timeout, 5 a solution is not accepted, 6 one was refused, 7 the service
    failed, 8 one was cancelled; where several apply, the highest; 130 interrupted.
    """
    files = {name: wanted.pop(name) for name in FILES}
    records.require_writable(*(path for name, path in files.items() if path and name != "gradescope"))
    finder = Finder(language, [name for words in packages for name in words.split()])
    asks = Wanted(**wanted)
    with client.Spool(place.spool) as spool:
        progress = Progress(spool)
        runner = Runner(spool, jobs=jobs, again=again, timeout=timeout, progress=progress)
        try:
            graded = _graded(runner, finder, sources, asks)
        except client.TimedOutError:
            progress.end()
            said = f"{progress.done} of {progress.total} are done within {timeout:g} s. {GOES_ON}"
            exits.say(said, exits.TIMED_OUT)
            return exits.TIMED_OUT
        except KeyboardInterrupt:
            progress.end()
            click.echo(f"\n{progress.done} of {progress.total} are done. {GOES_ON}", err=True)
            return exits.INTERRUPTED
        progress.end()
    return _tell(graded, files, progress.span, as_json=as_json)


def _graded(runner: Runner, finder: Finder, sources: Sequence[Path], wanted: Wanted) -> list[Graded]:
    if wanted.cases is None and sources[0].suffix.lower() in ARCHIVES and sources[0].is_file():
        from spoold.cli.grading import packaged, zipped  # noqa: PLC0415 - most users have no package

        with zipped.unpacked(sources[0]) as directory:
            return packaged.grade(runner, finder, directory, sources[1:], wanted)
    if (sources[0] / PACKAGE_FILE).is_file() and wanted.cases is None:
        from spoold.cli.grading import packaged  # noqa: PLC0415 - as above

        return packaged.grade(runner, finder, sources[0], sources[1:], wanted)
    if wanted.cases is None:
        raise click.UsageError("give --cases DIRECTORY, or a package with problem.yaml as the first argument")
    _require_one_judge(wanted)
    found = finder.find(sources)
    said_of(found.left_out)
    if not found.solutions:
        raise ClientError("there is no solution in the arguments: `spoolctl grade --help` says what counts as one")
    judge = wanted.checker or wanted.interactor
    checker = finder.checker(judge, wanted.protocol) if judge else None
    tests = options.with_points(cases.find(str(wanted.cases), needs_answers=checker is None), wanted.points)
    suite = Suite(
        tests,
        compare=options.compare(wanted.compare) if wanted.compare else None,
        checker=checker,
        talks=wanted.interactor is not None,
        stop=wanted.stop,
        hide=wanted.hide,
    )
    return runner.grade(Requests(suite), found.solutions, wanted.keys())


def _require_one_judge(wanted: Wanted) -> None:
    """Raise :class:`click.UsageError` where options say in two ways what is right, or in a way that there is not."""
    options = {"--compare": wanted.compare, "--checker": wanted.checker, "--interactor": wanted.interactor}
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} cannot be used together: each says what is right. Leave out one")
    if wanted.protocol and not (wanted.checker or wanted.interactor):
        raise click.UsageError("--protocol says how a program is called: give --checker or --interactor too")
    if wanted.protocol == "cms" and wanted.interactor:
        raise click.UsageError("--protocol cms is for checkers: an interactor uses kattis or testlib")


def _tell(graded: list[Graded], files: dict[str, str | None], span: float, *, as_json: bool) -> int:
    from spoold.cli.grading import reports, shown, values  # noqa: PLC0415 - --help need not wait for it

    on_stdout = as_json or records.STDOUT in files.values()
    for name, path in files.items():
        if path:
            reports.WRITERS[name](path, graded)
    if as_json:
        for each in graded:
            sys.stdout.buffer.write(values.line(each))
        sys.stdout.flush()
    if not on_stdout:
        tables.show(shown.table(graded, terminal=sys.stdout.isatty()))
    click.echo(shown.summary(graded, span), err=on_stdout)
    return shown.code(graded)
