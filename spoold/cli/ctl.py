"""The ``spoolctl`` command, the tool for people. Each command is in a module beside this one, imported when called."""

from __future__ import annotations

from typing import ClassVar

import click

from spoold.cli import completing, exits
from spoold.cli.lazy import Lazily, LazyGroup
from spoold.cli.place import Place


class Commands(LazyGroup):
    """The commands of spoolctl."""

    lazily: ClassVar = {
        "batch": Lazily("spoold.cli.batch", "batch", "Run many programs, and show the result of each."),
        "cancel": Lazily("spoold.cli.submissions", "cancel", "End a submission in any state."),
        "check": Lazily("spoold.cli.check", "command", "Find files that no state explains, and repair them."),
        "config": Lazily("spoold.cli.installing", "config", "Print the settings in force."),
        "deps": Lazily("spoold.cli.deps", "command", "List the packages in the dependency cache."),
        "doctor": Lazily("spoold.cli.doctor", "command", "Check that this host can run strangers' programs safely."),
        "gc": Lazily("spoold.cli.operator", "collect", "Delete unused dependencies."),
        "grade": Lazily("spoold.cli.grading.command", "grade", "Grade solutions by cases, or check a problem package."),
        "init": Lazily("spoold.cli.installing", "init", "Make the spool: its directories and modes."),
        "list": Lazily("spoold.cli.listing", "listed", "List the submissions that you made from here."),
        "logs": Lazily("spoold.cli.logs", "logs", "Print what a program printed, so far or in all."),
        "nixpkgs": Lazily("spoold.cli.pins", "command", "Add, list and remove pins of nixpkgs."),
        "outputs": Lazily("spoold.cli.returning", "outputs", "Write the files that a submission returned."),
        "report": Lazily("spoold.cli.report.command", "command", "Make a page for a browser from responses in files."),
        "requeue": Lazily("spoold.cli.operator", "requeue", "Run a finished submission once more."),
        "run": Lazily("spoold.cli.run", "run", "Run a program: its files, or a line of code."),
        "schema": Lazily("spoold.cli.schema", "command", "Print the JSON Schema of a request or a response."),
        "status": Lazily("spoold.cli.status", "status", "Show a response, or how far a submission has come."),
        "submit": Lazily("spoold.cli.submit", "submit", "Submit a request, or a directory with run.sh."),
        "top": Lazily("spoold.cli.top", "command", "Show queues and workers, live."),
        "wait": Lazily("spoold.cli.submissions", "wait", "Wait for responses, and show them."),
    }


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--config",
    metavar="FILE",
    shell_complete=completing.files,
    help="Settings in TOML. [default: $SPOOLD_CONFIG, /etc/spoold/spoold.toml]",
)
@click.option(
    "--spool",
    metavar="SPOOL",
    envvar="SPOOLD_SPOOL",
    shell_complete=completing.directories,
    help="The spool: a directory, or ssh://[user@]host[:port]/path. [default: $SPOOLD_SPOOL, the settings]",
)
@click.version_option(package_name="spoold")
@click.pass_context
def command(context: click.Context, config: str | None, spool: str | None) -> None:
    """Submit programs to spoold and read the responses.

    A submission is a JSON file in the incoming/ directory of the spool. This command is a convenience: `cp` works as
    well. `spoolctl COMMAND --help` explains each command, with examples. --json prints output for programs. --spool
    goes before the command or after it.

    \b
    Examples:
      spoolctl run hello.py <input.txt
      spoolctl submit homework/ --stdin input.txt --wait
      spoolctl list --state failed
      spoolctl status alice-ex3
      spoolctl --spool /srv/spool top

    Exit codes: 0 done, 1 cannot be done, 2 wrong usage, 3 a bug, 4 still on its way after --timeout, 5 the program
    failed, 6 it was refused, 7 the service failed, 8 it was cancelled, 130 interrupted.
    """
    context.obj = Place(config, spool)


def main() -> None:
    """Run the command."""
    exits.run(command, "spoolctl")


if __name__ == "__main__":
    main()
