"""Shell completion of ids, files and languages. Click itself completes the names of commands and options.

A shell starts the command anew for each completion, so the spool is not asked. The ids are those that were submitted
from here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from spoold.cli.place import SPOOL, Place

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

MOST = 100  # ids to offer, the newest


def ids(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the ids of submissions that begin with ``incomplete``, the newest first."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only a completing shell needs it

    from spoold.cli.record import Record  # noqa: PLC0415 - as above

    entries = Record(_place(context).spool).entries()
    taken = context.params.get("ids_") or ()
    found = [entry for entry in entries if entry.id.startswith(incomplete) and entry.id not in taken]
    return [CompletionItem(entry.id, help=entry.name if entry.name.isprintable() else None) for entry in found[:MOST]]


def _place(context: click.Context) -> Place:
    """Return the place named before or after the command. While a shell completes, the context has no place yet."""
    said = context.find_root().params
    return Place(_expanded(said.get("config")), _expanded(context.meta.get(SPOOL) or said.get("spool")))


def _expanded(word: str | None) -> str | None:
    """Return a path as the shell will give it to the command: a completing shell has not expanded it yet."""
    return os.path.expandvars(os.path.expanduser(word)) if word else None


def languages(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of languages that begin with ``incomplete``."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - as above

    from spoold.cli import tongues  # noqa: PLC0415 - as above
    from spoold.model.errors import SpooldError  # noqa: PLC0415 - as above

    try:
        known = tongues.languages()
    except SpooldError:
        return []
    return [CompletionItem(name, help=known[name].title) for name in known if name.startswith(incomplete)]


def files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Tell the shell to complete names of files."""
    return [_item(incomplete, "file")]


def directories(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Tell the shell to complete names of directories."""
    return [_item(incomplete, "dir")]


def _item(value: str, kind: str) -> CompletionItem:
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - as above

    return CompletionItem(value, type=kind)
