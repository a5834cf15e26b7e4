"""A group whose commands are imported when called, so that nobody waits for the import of commands they do not use."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import click

from spoold.cli import completing
from spoold.cli.place import SPOOL

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

ABOUT = "The spool: a directory, or ssh://[user@]host[:port]/path. [default: $SPOOLD_SPOOL, the settings]"


class Lazily(NamedTuple):
    """A command: ``name`` in ``module``, and its line in the list of commands."""

    module: str
    name: str
    about: str


class LazyGroup(click.Group):
    """A group with the commands in ``lazily``. Each command also takes ``--spool``."""

    lazily: ClassVar[Mapping[str, Lazily]] = {}

    def __init__(self, *args: Any, **attrs: Any) -> None:
        self._imported: dict[str, click.Command] = {}
        super().__init__(*args, **attrs)

    @property
    def commands(self) -> MutableMapping[str, click.Command]:
        """Return all commands, imported, for callers that need each of them."""
        return {name: self._import(name) for name in sorted(self.lazily)}

    @commands.setter
    def commands(self, _: object) -> None:
        """Ignore the empty mapping that click sets at the start."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Return the names, sorted."""
        return sorted(self.lazily)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Import a command."""
        return self._import(cmd_name) if cmd_name in self.lazily else None

    def _import(self, name: str) -> click.Command:
        if name not in self._imported:
            found = self.lazily[name]
            self._imported[name] = getattr(importlib.import_module(found.module), found.name)
            _add_spool(self._imported[name])
        return self._imported[name]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete options, and the names of commands without importing them."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only a completing shell needs it

        names = (name for name in sorted(self.lazily) if name.startswith(incomplete))
        found = [CompletionItem(name, help=self.lazily[name].about) for name in names]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.lazily[name].about) for name in sorted(self.lazily)])


def _add_spool(command: click.Command) -> None:
    if not any("--spool" in parameter.opts for parameter in command.params):
        command.params.append(
            click.Option(
                ["--spool"],
                metavar="SPOOL",
                expose_value=False,
                callback=_take_spool,
                shell_complete=completing.directories,
                help=ABOUT,
            )
        )
    for inner in getattr(command, "commands", {}).values():
        _add_spool(inner)


def _take_spool(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    context.meta[SPOOL] = value
    if context.obj is not None:
        context.obj.named = value
