"""The command line of ``spoold``: a click command for each role. ``daemon`` does what one asks for.

The object of the click context is a function. Each command calls it with what was asked for, as keyword arguments that
JSON can express: the names of the fields of ``daemon.Asked``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import click

from spoold.config import NAME
from spoold.model.states import Role

Tell = Callable[..., None]
HELP = {
    Role.INTAKE: "Take submissions from incoming/ into the spool. Run one intake on a spool.",
    Role.EXECUTOR: (
        "Run submissions in sandboxes and publish the responses. Several executors can run on a spool, each with its "
        "own [executor] name."
    ),
    Role.BUILDER: "Install dependencies with Nix. Only the builder writes the Nix store. Run one builder on a spool.",
    Role.HEALTH: (
        "Put back the entries that dead workers held. End entries that cost too many attempts, and remove old ones. "
        "Run one health daemon on a spool."
    ),
    Role.SCALE: (
        "Make Slurm start executors while there is work for them. The settings limit their number for each pool "
        "([scale.pools.NAME]). Run one scale daemon on a spool, on a host where sbatch, squeue and scancel work."
    ),
}
MORE = """

\b
Examples:
  spoold {role}
  spoold --config ./spoold.toml --log-level debug {role}

Signals: SIGTERM and SIGINT make the daemon drain and stop. After a second one it does not wait for running
work. SIGHUP makes it read the settings again.

Exit codes: 0 stopped by SIGTERM or SIGINT and drained, 1 it cannot start: the text on stderr says why and what to do.
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", metavar="FILE", help="Settings in TOML. [default: $SPOOLD_CONFIG, /etc/spoold/spoold.toml]")
@click.option("--spool", metavar="DIRECTORY", help="The spool, in place of [spool] path in the settings.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="The least urgent level that is logged.",
)
@click.version_option(package_name="spoold")
@click.pass_context
def command(context: click.Context, config: str | None, spool: str | None, log_level: str) -> None:
    """Remote code execution whose only interface is a directory.

    Each daemon runs in the foreground, logs to stderr, and tells systemd when it is ready. On SIGTERM it drains: it
    finishes the work that is running and takes no new work. The daemons share nothing but the spool, so each can be
    stopped and started at any time. `spoolctl` is the tool for people.

    \b
    Examples:
      spoold --config ./spoold.toml all
      spoold executor

    Exit codes: 0 stopped and drained, 1 it cannot start, 2 wrong usage, 3 a bug.
    """
    context.obj = partial(context.obj, config=config, spool=spool, log_level=log_level)


def _add(role: Role, text: str) -> None:
    @command.command(role, help=text + MORE.format(role=role))
    @click.pass_obj
    def ask_for_role(tell: Tell) -> None:
        tell(role=role)


for _role, _text in HELP.items():
    if _role is not Role.EXECUTOR:
        _add(_role, _text)


@command.command(Role.EXECUTOR, help=HELP[Role.EXECUTOR] + MORE.format(role=Role.EXECUTOR))
@click.option("--name", metavar="NAME", help="The name of this executor, in place of [executor] name.")
@click.option(
    "--slots",
    metavar="NUMBER",
    type=click.IntRange(min=1),
    help="How many programs run at once, in place of [executor] slots.",
)
@click.option(
    "--idle",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="End after this long without work, in place of [executor] idle.",
)
@click.option(
    "--lifetime",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="Take no more jobs this long after the start, in place of [executor] lifetime.",
)
@click.option(
    "--drain",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="Let jobs run this long when stopping, in place of [executor] drain.",
)
@click.option(
    "--route-only",
    is_flag=True,
    default=None,
    help="Only file builds and leave jobs to others, as [executor] route_only does.",
)
@click.pass_obj
def ask_for_executor(tell: Tell, /, name: str | None, **more: object) -> None:
    """Ask for one executor."""
    if name is not None and not re.fullmatch(NAME, name):
        raise click.UsageError(f"--name {name!a}: use letters, digits, '.', '_' and '-', the first a letter or digit")
    said = {"name": name} | more
    tell(role=Role.EXECUTOR, executor={key: value for key, value in said.items() if value is not None})


@command.command("fetch", short_help="Run the proxy through which the builder downloads.")
@click.pass_obj
def ask_for_fetch(tell: Tell) -> None:
    """Run the proxy that lets downloads of the builder through to the hosts in the settings, and to no others.

    These hosts are those in [nix] fetch for pinned sources, and those of binary caches and pins that are URLs. The
    proxy does not use the spool. It ends at once where the settings name no host. Where no proxy runs, such as at a
    desk, a builder starts its own for each download.

    \b
    Examples:
      spoold --config ./spoold.toml fetch

    It listens at the socket "socket" in $RUNTIME_DIRECTORY, by default /run/spoold-fetch.

    Signals: SIGTERM ends it and the downloads that are running; the builder tries those again. The settings are read
    for each download.

    Exit codes: 0 there is nothing to do, 1 it cannot start: the text on stderr says why and what to do.
    """
    tell(role="fetch")


@command.command("all", short_help="Run all daemons in one process, for a desk or a demo.")
@click.pass_obj
def ask_for_all(tell: Tell) -> None:
    """Run all daemons in one process, for a desk or a demo. Make the spool if there is none.

    \b
    Examples:
      spoold --spool /tmp/spool all

    Exit codes: 0 stopped by SIGTERM or SIGINT and drained, 1 it cannot start.
    """
    tell(role="all")
