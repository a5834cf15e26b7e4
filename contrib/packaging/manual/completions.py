"""Completions by click's own templates. A shell asks the command itself what may come next, so they stay current."""

from __future__ import annotations

from collections.abc import Iterator

from click.shell_completion import get_completion_class

from spoold.cli import ctl, roles

COMMANDS = {"spoolctl": ctl.command, "spoold": roles.command}


def of_shell(shell: str) -> Iterator[tuple[str, str]]:
    """Yield the name of each command and its completion for ``shell``."""
    kind = get_completion_class(shell)
    if kind is None:
        raise ValueError(f"click has no completion for {shell}")
    for name, command in COMMANDS.items():
        complete = kind(command, {}, name, f"_{name.upper()}_COMPLETE")
        # Not source(): bash's method runs the bash of this machine to see how old it is.
        yield name, complete.source_template % complete.source_vars()
